"""Count failed runs: every structure, 2 to 128 targets, several units, two learning rates.

Hand-written losses often fail on targets that are not standardized. Here, no run may end with a
value that is not finite, or with a test likelihood worse than that of the constant-covariance
model. One run is a network of two layers of 64 gelu units and an adapted head with the default
settings, trained by Adam without clipping; the weights with the best validation NLL are kept, as
`EarlyStopping(restore_best_weights=True)` does. The constant-covariance model is the same network
trained on squared errors in standard deviations of y, with the covariance of its training residuals
represented by the same structure, from the same seed at the same learning rate.

Problem: 8 inputs, y = sine of random projections + noise with a common factor whose level grows
with x_0; 3072 training rows, 512 validation rows, 1024 test rows. Units of y: standardized, times
1000, times 1/1000, and from 1e-3 to 1e3 within one table.

The 40 runs of a cell (4 units, 2 learning rates, 5 seeds) train side by side (`jax.vmap`).

    export XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    KERAS_BACKEND=jax python benchmarks/failures.py

The flags keep XLA from deadlocking on few cores. Takes about 20 minutes on one core up to d = 32.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np

import keras_mvn as kmvn
from keras_mvn import covariances
from keras_mvn.covariances import Covariance

UNITS = {
    "standardized": lambda d: np.ones(d),
    "x 1000": lambda d: np.full(d, 1e3),
    "/ 1000": lambda d: np.full(d, 1e-3),
    "mixed": lambda d: np.geomspace(1e-3, 1e3, d),
}
RATES = (1e-3, 1e-2)
SEEDS = range(5)
TRAIN, VALIDATION, TEST = 3072, 512, 1024
EVALUATE_EVERY = 20


def structures(d: int) -> dict[str, Covariance]:
    """Return every structure that is feasible for d targets on two cores."""
    found = {
        name: covariances.get(name)
        for name in ("isotropic", "diagonal", "cholesky", "precision_cholesky")
    }
    if d <= 32:
        found |= {"correlation": covariances.Correlation()}
    if d <= 8:
        found |= {"symmetric": covariances.Symmetric()}
    half = d // 2
    found |= {
        "LowRank(2)": covariances.LowRank(2),
        "Banded(1)": covariances.Banded(1),
        "BlockDiagonal(2 halves)": covariances.BlockDiagonal(
            [(range(half), "cholesky"), (range(half, d), "precision_cholesky")]
        ),
        "Kronecker(2, d/2)": covariances.Kronecker((2, half)),
    }
    return found


def table(d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and standardized targets of all rows."""
    rng = np.random.default_rng(seed)
    rows = TRAIN + VALIDATION + TEST
    x = rng.normal(size=(rows, 8))
    mean = np.sin(x @ rng.normal(size=(8, d)) * 0.5)
    common = rng.normal(size=(rows, 1)) * rng.normal(size=d)
    noise = np.exp(0.5 * x[:, :1]) * (0.3 * rng.normal(size=(rows, d)) + 0.3 * common)
    y = mean + noise
    return x, y / y[:TRAIN].std(axis=0)


def variants() -> list[tuple[str, float, int]]:
    return [(unit, rate, seed) for unit in UNITS for rate in RATES for seed in SEEDS]


def build(head: keras.layers.Layer) -> keras.Model:
    model = keras.Sequential(
        [keras.Input((8,)), *(keras.layers.Dense(64, "gelu") for _ in range(2)), head]
    )
    return model


def stack(trees: list) -> list:
    return [jnp.stack(values) for values in zip(*trees, strict=True)]


def start(make_head, runs, data) -> tuple[keras.Model, list, list]:
    """Return the initial trainable and other variables of all runs."""
    trainable, fixed = [], []
    for unit, _, seed in runs:
        keras.utils.set_random_seed(seed)
        model = build(make_head(data[unit, seed][1][:TRAIN]))
        trainable.append([v.value for v in model.trainable_variables])
        fixed.append([v.value for v in model.non_trainable_variables])
    return model, stack(trainable), stack(fixed)


def train(model, loss, score, trainable, fixed, runs, data, steps, batch, kept):
    """Predict the last `kept` rows with the best weights; also return whether losses were finite.

    Runs with many targets are trained in groups, to limit memory.
    """

    def one(trainable, fixed, rate, key, x, y):
        x_val, y_val = x[TRAIN : TRAIN + VALIDATION], y[TRAIN : TRAIN + VALIDATION]

        def value(trainable, x, training):
            return model.stateless_call(trainable, fixed, x, training=training, return_losses=True)

        def objective(trainable, x, y):
            y_pred, _, penalties = value(trainable, x, True)
            return loss(y, y_pred) + sum(penalties, 0.0)

        def step(carry, key):
            trainable, m, v, count, best, best_value, finite = carry
            index = jax.random.randint(key, (batch,), 0, TRAIN)
            current, grads = jax.value_and_grad(objective)(trainable, x[index], y[index])
            count = count + 1
            m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grads)
            v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, grads)
            size = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            trainable = jax.tree.map(
                lambda p, a, b: p - size * a / (jnp.sqrt(b) + 1e-7), trainable, m, v
            )
            return (trainable, m, v, count, best, best_value, finite & jnp.isfinite(current)), None

        def round_(carry, keys):
            carry, _ = jax.lax.scan(step, carry, keys)
            trainable, m, v, count, best, best_value, finite = carry
            now = score(y_val, value(trainable, x_val, False)[0])
            better = now < best_value
            best = jax.tree.map(lambda a, b: jnp.where(better, a, b), trainable, best)
            best_value = jnp.where(better, now, best_value)
            return (trainable, m, v, count, best, best_value, finite), None

        zeros = [jnp.zeros_like(a) for a in trainable]
        first = score(y_val, value(trainable, x_val, False)[0])
        carry = (trainable, zeros, zeros, 0.0, trainable, first, jnp.isfinite(first))
        keys = jax.random.split(key, steps).reshape(steps // EVALUATE_EVERY, EVALUATE_EVERY, -1)
        (_, _, _, _, best, _, finite), _ = jax.lax.scan(round_, carry, keys)
        return value(best, x[-kept:], False)[0], finite

    x = jnp.stack([data[unit, seed][0] for unit, _, seed in runs]).astype("float32")
    y = jnp.stack([data[unit, seed][1] for unit, _, seed in runs]).astype("float32")
    rates = jnp.array([rate for _, rate, _ in runs])
    keys = jax.random.split(jax.random.key(0), len(runs))
    keys = jax.vmap(jax.random.key_data)(keys)
    run, parts = jax.jit(jax.vmap(one)), []
    group = len(runs) if y.shape[-1] < 128 else 10
    for first in range(0, len(runs), group):
        some = slice(first, first + group)
        arguments = ([v[some] for v in trainable], [v[some] for v in fixed], rates[some])
        predictions, finite = run(*arguments, keys[some], x[some], y[some])
        parts.append((np.asarray(predictions), np.asarray(finite)))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def constant(d, data, runs, steps, batch):
    """Return all residuals of a squared-error network, per learning rate and seed."""

    class Mean(keras.layers.Layer):
        """The mean of an adapted head."""

        def __init__(self, head):
            super().__init__()
            self.head = head

        def call(self, inputs):
            return self.head(inputs)[..., :d]

    def make_head(y):
        head = kmvn.layers.MultivariateNormalHead(d, "diagonal", constant="covariance")
        head.adapt(y)
        return Mean(head)

    standard = [run for run in runs if run[0] == "standardized"]

    def loss(y, mean):
        return jnp.mean((y - mean) ** 2)

    model, trainable, fixed = start(make_head, standard, data)
    everything = TRAIN + VALIDATION + TEST
    means, _ = train(model, loss, loss, trainable, fixed, standard, data, steps, batch, everything)
    return {
        (rate, seed): data["standardized", seed][1] - mean
        for (_, rate, seed), mean in zip(standard, means.astype(float), strict=True)
    }


def constant_score(structure, residual):
    """Return the test NLL per target of a constant covariance in this structure."""
    scale, shape_params = structure.from_covariance(np.cov(residual[:TRAIN].T, bias=True))
    if structure.raw_size(len(scale)) == 1:  # isotropic in units of y, which are one here
        scale = np.full_like(scale, np.sqrt(np.mean(scale**2)))
    y_pred = np.concatenate([np.zeros_like(scale), scale, shape_params])
    normal = kmvn.MultivariateNormal.from_prediction(y_pred, structure.wire)
    return -normal.log_prob(residual[-TEST:]).mean() / len(scale)


def run_cell(structure, loss_class, d, data, steps, batch):
    """Return (number of non-finite runs, test NLL per standardized target of each run)."""
    runs = variants()

    def make_head(y):
        head = kmvn.layers.MultivariateNormalHead(d, structure)
        head.adapt(y)
        return head

    model, trainable, fixed = start(make_head, runs, data)
    loss = loss_class(structure)
    score = kmvn.losses.NegativeLogLikelihood(structure)
    y_pred, finite = train(model, loss, score, trainable, fixed, runs, data, steps, batch, TEST)
    nll = []
    for (unit, _, seed), prediction in zip(runs, y_pred, strict=True):
        if not np.isfinite(prediction).all():
            nll.append(np.nan)
            continue
        normal = kmvn.MultivariateNormal.from_prediction(prediction, structure)
        value = -normal.log_prob(data[unit, seed][1][-TEST:]).mean() - np.log(UNITS[unit](d)).sum()
        nll.append(value / d)
    return finite, np.array(nll)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--d", type=int, nargs="+", default=[2, 8, 32, 128])
    parser.add_argument("--structures", nargs="+", help="names in the table; all of them")
    parser.add_argument("--loss", default="BalancedNegativeLogLikelihood")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/failures.md"))
    arguments = parser.parse_args()

    loss_class = getattr(kmvn.losses, arguments.loss)
    lines = [
        f"{arguments.loss}, {keras.backend.backend()}; 40 runs a cell: 4 units x 2 learning rates "
        "x 5 seeds.",
        "NLL per target on the test rows, in standardized units: median (worst).",
        "",
        "| d | structure | not finite | worse than constant covariance | NLL, rate 1e-3 | constant "
        "covariance | NLL, rate 1e-2 | constant covariance | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for d in arguments.d:
        steps, batch = (600, 128) if d < 128 else (300, 64)
        data = {}
        for seed in SEEDS:
            x, y = table(d, seed)
            data |= {(unit, seed): (x, y * factor(d)) for unit, factor in UNITS.items()}
        residuals = constant(d, data, variants(), steps, batch)
        for name, structure in structures(d).items():
            if arguments.structures and name not in arguments.structures:
                continue
            began = time.perf_counter()
            finite, nll = run_cell(structure, loss_class, d, data, steps, batch)
            seconds = time.perf_counter() - began
            reference = {key: constant_score(structure, r) for key, r in residuals.items()}
            against = np.array([reference[rate, seed] for _, rate, seed in variants()])
            worse = int((nll > against).sum())
            bad = int((~finite | np.isnan(nll)).sum())
            cells = []
            for rate in RATES:
                here = np.array([run[1] == rate for run in variants()])
                cells.append(f"{np.median(nll[here]):.3f} ({np.max(nll[here]):.3f})")
                cells.append(f"{np.median(against[here]):.3f}")
            lines.append(
                f"| {d} | {name} | {bad} of 40 | {worse} of 40 | {' | '.join(cells)} "
                f"| {seconds:.0f} |"
            )
            print(lines[-1], flush=True)
            arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
