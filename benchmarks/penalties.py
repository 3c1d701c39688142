"""Test whether a penalty on the covariance helps on small tables, paired with no penalty.

A small gelu network with an adapted head, 600 full-batch steps of Adam (2e-3), keeping the weights
with the best validation NLL: n training rows, n/2 validation rows, the rest (at most 2000) for
testing. Ten random splits; all methods start from the same weights on the same split. The score is
the test NLL per target, without penalty, as computed by `metrics.NegativeLogLikelihood`.

* air.csv: US EPA air quality, 15 inputs, 6 pollutants.
* energy_efficiency.csv: UCI 242, 8 inputs, heating and cooling load.
* diabetes: scikit-learn's, 4 inputs, 6 blood serum measurements.

All splits of one penalty train side by side (`jax.vmap`), with the library's loss, penalty and
metric inside; the numbers of a penalty are inputs of the compiled function.

    KERAS_BACKEND=jax python benchmarks/penalties.py --data ../shared/data  # about 6 CPU minutes
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np

import keras_mvn as kmvn
from keras_mvn import regularizers
from tables import air, diabetes, divide, energy

STEPS = 600
LEARNING_RATE = 2e-3
LARGEST_TEST = 2000


def no_penalty(strength, y):
    return None


# name → strengths, and a function of (strength, training targets) that makes the penalty
Make = Callable[[float, np.ndarray], regularizers.CovarianceRegularizer | None]
STRENGTHS = (0.01, 0.1, 1.0)
PENALTIES: dict[str, tuple[tuple[float, ...], Make]] = {
    "CovarianceL1": (STRENGTHS, lambda s, y: regularizers.CovarianceL1(s)),
    "CovarianceL1, partial correlations": (
        STRENGTHS,
        lambda s, y: regularizers.CovarianceL1(s, on="partial_correlation"),
    ),
    "CovarianceL2": (STRENGTHS, lambda s, y: regularizers.CovarianceL2(s)),
    "CovarianceL2, partial correlations": (
        STRENGTHS,
        lambda s, y: regularizers.CovarianceL2(s, on="partial_correlation"),
    ),
    "LKJ of every row (η − 1)": (STRENGTHS, lambda s, y: regularizers.LKJ(1.0 + s, rows=1)),
    "ConditionNumber": (STRENGTHS, lambda s, y: regularizers.ConditionNumber(s)),
    "ConditionNumber above 10": (STRENGTHS, lambda s, y: regularizers.ConditionNumber(s, 10.0)),
    "Shrinkage to the diagonal": (STRENGTHS, lambda s, y: regularizers.Shrinkage(s)),
    "Shrinkage to Ledoit–Wolf": (
        (0.1, 1.0, 4.0),
        lambda s, y: regularizers.Shrinkage.from_targets(y, s),
    ),
    "InverseWishart, mode diag(var y) (m/n)": (
        (0.25, 1.0, 4.0),
        lambda s, y: regularizers.InverseWishart.from_mode(
            np.diag(y.var(axis=0)), s * len(y), rows=len(y)
        ),
    ),
    "HalfLogDet": ((-0.5, -0.2, 0.2), lambda s, y: regularizers.HalfLogDet(s)),
}


def split(x, y, n, seed):
    """Return training, validation and test (x, y); inputs standardized by the training rows."""
    order = np.random.default_rng(seed).permutation(len(x))
    train, validation, test = np.split(order, [n, n + n // 2])
    return divide(x, y, [train, validation, test[:LARGEST_TEST]])


def network(train, covariance, seed):
    keras.utils.set_random_seed(seed)
    x, y = train
    head = kmvn.layers.MultivariateNormalHead(y.shape[1], covariance)
    head.adapt(y)
    hidden = [keras.layers.Dense(32, "gelu") for _ in range(2)]
    return keras.Sequential([keras.Input((x.shape[1],)), *hidden, head])


def numbers_of(penalty):
    """Return the attributes of a penalty that are numbers or arrays."""
    return {
        name: np.asarray(value, "float32")
        for name, value in vars(penalty).items()
        if isinstance(value, (int, float, np.ndarray)) and not isinstance(value, bool)
    }


def with_numbers(penalty, numbers):
    """Return the same penalty with these numbers, which may be tracers."""
    bound = copy.copy(penalty)
    vars(bound).update(numbers)
    return bound


def adam(weights, gradients, state, step):
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state[0], gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state[1], gradients)
    rate = LEARNING_RATE * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    moved = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second
    )
    return moved, (first, second)


def train_one(model, penalty, covariance, numbers, weights, fixed, parts):
    """Return the test NLL per target of the weights with the best validation NLL."""
    train, validation, test = parts
    regularizer = penalty and with_numbers(penalty, numbers)
    loss = kmvn.losses.NegativeLogLikelihood(covariance, regularizer=regularizer)
    metric = kmvn.metrics.NegativeLogLikelihood(covariance)

    def predict(weights, x):
        return model.stateless_call(weights, fixed, x)[0]

    def score(weights, part):
        totals = [jnp.zeros(())] * len(metric.variables)
        totals = metric.stateless_update_state(totals, part[1], predict(weights, part[0]))
        return metric.stateless_result(totals) / part[1].shape[-1]

    def advance(carry, step):
        weights, state, best, lowest = carry
        gradients = jax.grad(lambda w: loss(train[1], predict(w, train[0])))(weights)
        weights, state = adam(weights, gradients, state, step)
        value = score(weights, validation)
        best = jax.tree.map(lambda b, w: jnp.where(value < lowest, w, b), best, weights)
        return (weights, state, best, jnp.fmin(value, lowest)), None

    zeros = jax.tree.map(jnp.zeros_like, weights)
    start = weights, (zeros, zeros), weights, score(weights, validation)
    (_, _, best, _), _ = jax.lax.scan(advance, start, jnp.arange(1.0, STEPS + 1.0))
    return score(best, test)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def start(splits, covariance):
    """Return a model, and the initial trainable and other weights of every split."""
    models = [network(parts[0], covariance, seed) for seed, parts in enumerate(splits)]
    weights = [[v.value for v in model.trainable_variables] for model in models]
    fixed = [[v.value for v in model.non_trainable_variables] for model in models]
    return models[0], stack(weights), stack(fixed)


def run(splits, covariance, beginning, make, strengths):
    """Return the test NLL per target: (strengths, splits)."""
    model, weights, fixed = beginning
    penalties = [[make(s, parts[0][1].astype(float)) for parts in splits] for s in strengths]
    template = penalties[0][0]
    numbers = [[numbers_of(p) if p else {} for p in row] for row in penalties]
    one = jax.jit(jax.vmap(partial(train_one, model, template, covariance)))
    return np.array([one(stack(row), weights, fixed, stack(splits)) for row in numbers])


def table_rows(name, splits):
    """Run every penalty on these splits, and format the table."""
    starts = {covariance: start(splits, covariance) for covariance in ("cholesky", "diagonal")}
    runs = {
        "none": ("cholesky", (0.0,), no_penalty),
        "none, diagonal covariance": ("diagonal", (0.0,), no_penalty),
        **{label: ("cholesky", *penalty) for label, penalty in PENALTIES.items()},
    }
    d = splits[0][0][1].shape[1]
    yield f"\n## {name}, {d} targets\n"
    yield "| penalty | strength | median NLL per target | gain: median (worst, best) | better |"
    yield "| --- | --- | --- | --- | --- |"
    for label, (covariance, strengths, make) in runs.items():
        began = time.perf_counter()
        scores = run(splits, covariance, starts[covariance], make, strengths)
        print(f"  {name}: {label}, {time.perf_counter() - began:.0f} s", flush=True)
        if label == "none":
            none = scores[0]
        for strength, row in zip(strengths, scores, strict=True):
            yield line(label, f"{strength:g}" if make is not no_penalty else "", none, row)


def line(label, strength, none, scores):
    gain = none - scores
    compared = (
        " | "
        if label == "none"
        else f"{np.median(gain):+.3f} ({gain.min():+.3f}, {gain.max():+.3f}) | "
        f"{(gain > 0).sum()} of {len(gain)}"
    )
    return f"| {label} | {strength} | {np.median(scores):.3f} | {compared} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/penalties.md"))
    arguments = parser.parse_args()

    began = time.perf_counter()
    tables = (("air", air, 64), ("air", air, 128), ("energy", energy, 64),
              ("diabetes", diabetes, 64))  # fmt: skip
    lines = []
    for name, load, n in tables:
        x, y = load(arguments.data)
        splits = [split(x, y, n, seed) for seed in range(arguments.splits)]
        lines.extend(table_rows(f"{name}, n = {n}", splits))
    head = (
        f"Test NLL per target in nats without penalty, {arguments.splits} paired splits, Cholesky "
        f"unless said otherwise, jax, "
        f"{time.perf_counter() - began:.0f} s in all. Gain: how much lower than without penalty "
        "on the same split; positive is better."
    )
    text = "\n".join([head, *lines]) + "\n"
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
