"""Test whether `shrinkage="auto"` makes a full covariance as safe as a simple one.

There are n rows in total, a quarter of them for validation, the rest for training; at most 1000
other rows are the test rows. Two hidden layers of 32 (gelu), standardized inputs,
`head.adapt(y_train)`, 600 steps of Adam (2e-3) in batches of about 100 rows, and the weights with
the best validation score among those of every fourth step. Ten random splits or draws; all methods
start from the same weights on the same splits. The score is the test NLL per target, in nats, in
the units of y.

* synthetic: d = 8, x ~ U(0, 10), mean x sin(x + 0.7 j), standard deviations
  (0.1 + 0.3 x)·(.5, .75, 1, 1.25, .5, …), correlations 0.8 cos(0.07 (i − j) x): problem "fan" of
  losses.py with more targets and a correlation that varies with x.
* known truth: O'Malley et al. 2021, Table 1, two targets (known_truth.py).
* energy_efficiency.csv: UCI 242, 8 inputs, heating and cooling load.
* air.csv: US EPA air quality, 15 inputs, 6 pollutants.

Compared:

* the full head (Cholesky) without and with the head's `shrinkage="auto"`, and with four times its
  strength, trained by the NLL and by the balanced loss, and started at the covariance of held-out
  residuals of a ridge regression instead of that of y;
* the diagonal head, without shrinkage;
* constant Σ: an MSE network and the covariance of its residuals, either of the training rows, with
  early stopping on the resulting validation NLL, or of training and validation rows after that.

All splits and strengths train side by side (`jax.vmap`) through the library's head and losses.

    KERAS_BACKEND=jax python benchmarks/small_tables.py --data ../shared/data  # 5 CPU minutes
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

import keras_mvn as kmvn
import known_truth
from penalties import adam, stack
from tables import air, divide, energy

STEPS, SCORED_EVERY, LARGEST_BATCH, LARGEST_TEST = 600, 4, 128, 1000
CELLS = (
    *((name, n) for n in (64, 256) for name in ("energy", "air", "synthetic")),
    ("energy", 576),
    ("known truth", 1333),
    ("air", 1024),
    ("synthetic", 1024),
    ("synthetic", 4096),
)
STRENGTHS = {0.0: "no shrinkage", 1.0: '"auto"', 4.0: '4 × "auto"'}
CONSTANT = "constant Σ, training residuals"


def synthetic(n, rng, d=8):
    """Draw x (n, 1) and y (n, d) of the synthetic problem in the module docstring."""
    x, j = rng.uniform(0, 10, (n, 1)), np.arange(d)
    scale = (0.1 + 0.3 * x) * np.tile([0.5, 0.75, 1.0, 1.25], d // 4)
    r = 0.8 * np.cos(0.07 * (j[:, None] - j) * x[..., None]) + 0.2 * np.eye(d)
    noise = np.einsum("nij,nj->ni", np.linalg.cholesky(r), rng.normal(size=(n, d)))
    return x, x * np.sin(x + 0.7 * j) + scale * noise


def split(name, n, seed, data):
    """Return training, validation and test (x, y); inputs standardized by the training rows."""
    rng = np.random.default_rng(seed)
    draws = {"synthetic": synthetic, "known truth": lambda n, rng: known_truth.draw(rng, n)}
    if name in draws:
        x, y = draws[name](n + LARGEST_TEST, rng)
        order = np.arange(len(x))
    else:
        x, y = {"air": air, "energy": energy}[name](data)
        order = rng.permutation(len(x))
    train, validation, test = np.split(order, [n - n // 4, n])
    return divide(x, y, [train, validation, test[:LARGEST_TEST]])


def network(x, last, seed):
    keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(32, "gelu") for _ in range(2)]
    return keras.Sequential([keras.Input((x.shape[1],)), *hidden, last])


def with_head(train, seed, covariance, of_residuals):
    x, y = train
    # `train_head` multiplies the penalty.
    head = kmvn.layers.MultivariateNormalHead(y.shape[1], covariance, shrinkage="auto")
    head.adapt(y, residuals=ridge_residuals(x, y) if of_residuals else None)
    return network(x, head, seed)


def ridge_residuals(x, y):
    """Return residuals of a ridge regression on rows that it has not seen (5 folds)."""
    sd = y.std(axis=0)
    ridge = RidgeCV(alphas=np.logspace(-1, 3, 9))
    return y - sd * cross_val_predict(ridge, x, y / sd)


def optimize(objective, score, weights, rows):
    """Return the weights with the lowest score among those of every fourth step."""
    batches = -(-rows // LARGEST_BATCH)
    size = rows // batches

    def step(_, carry):
        weights, state, count = carry
        first = (count.astype(int) - 1) % batches * size
        gradients = jax.grad(objective)(
            weights, lambda array: jax.lax.dynamic_slice_in_dim(array, first, size)
        )
        return (*adam(weights, gradients, state, count), count + 1.0)

    def advance(carry, _):
        inner, best, lowest = carry
        inner = jax.lax.fori_loop(0, SCORED_EVERY, step, inner)
        value = score(inner[0])
        best = jax.tree.map(lambda b, w: jnp.where(value < lowest, w, b), best, inner[0])
        return (inner, best, jnp.fmin(value, lowest)), None

    zeros = jax.tree.map(jnp.zeros_like, weights)
    start = (weights, (zeros, zeros), jnp.ones(())), weights, score(weights)
    (_, best, _), _ = jax.lax.scan(advance, start, length=STEPS // SCORED_EVERY)
    return best


def train_head(model, loss, strength, weights, fixed, parts):
    """Return the test NLL per target of the head with this multiple of its shrinkage."""
    (x, y), validation, test = parts
    nll = kmvn.losses.NegativeLogLikelihood(model.layers[-1].covariance)

    def objective(weights, batch):
        y_pred, _, (penalty,) = model.stateless_call(
            weights, fixed, batch(x), training=True, return_losses=True
        )
        return loss(batch(y), y_pred) + strength * penalty

    def score(part, weights):
        return nll(part[1], model.stateless_call(weights, fixed, part[0])[0]) / y.shape[1]

    return score(test, optimize(objective, partial(score, validation), weights, len(x)))


def constant_nll(residuals, known):
    """Return the NLL per target of residuals under the second moment of known ones."""
    d = residuals.shape[1]
    tril = jnp.linalg.cholesky(known.T @ known / len(known) + 1e-6 * jnp.eye(d))
    z = jax.scipy.linalg.solve_triangular(tril, residuals.T, lower=True)
    log_scale = jnp.sum(jnp.log(jnp.diagonal(tril)))
    return (0.5 * jnp.mean(jnp.sum(z * z, axis=0)) + log_scale) / d + 0.5 * np.log(2 * np.pi)


def train_constant(model, weights, fixed, parts):
    """Return the test NLL per target of an MSE network with constant residual covariances."""
    (x, y), (x_val, y_val), (x_test, y_test) = parts
    mean, sd = y.mean(axis=0), y.std(axis=0)

    def residuals(weights, x, y):
        return (y - mean) / sd - model.stateless_call(weights, fixed, x)[0]

    def objective(weights, batch):
        return jnp.mean(residuals(weights, batch(x), batch(y)) ** 2)

    def validation_nll(weights):
        return constant_nll(residuals(weights, x_val, y_val), residuals(weights, x, y))

    best = optimize(objective, validation_nll, weights, len(x))
    train, test = residuals(best, x, y), residuals(best, x_test, y_test)
    pooled = jnp.concatenate([train, residuals(best, x_val, y_val)])
    scores = [constant_nll(test, train), constant_nll(test, pooled)]
    return jnp.stack(scores) + jnp.mean(jnp.log(sd))


def started(models):
    """Return a model, and the initial trainable and other weights of every split."""
    weights = [[v.value for v in model.trainable_variables] for model in models]
    fixed = [[v.value for v in model.non_trainable_variables] for model in models]
    return models[0], stack(weights), stack(fixed)


def heads(splits, covariance, strengths, loss="NegativeLogLikelihood", of_residuals=False):
    """Return the test NLL per target: (strengths, splits)."""
    model, weights, fixed = started(
        [with_head(parts[0], seed, covariance, of_residuals) for seed, parts in enumerate(splits)]
    )
    one = partial(train_head, model, getattr(kmvn.losses, loss)(covariance))
    over_splits = jax.vmap(one, (None, 0, 0, 0))
    train = jax.jit(jax.vmap(over_splits, (0, None, None, None)))
    return np.array(train(jnp.array(strengths, "float32"), weights, fixed, stack(splits)))


def constants(splits):
    """Return the test NLL per target: (kinds of constant Σ, splits)."""
    models = [
        network(x, keras.layers.Dense(y.shape[1]), seed) for seed, ((x, y), *_) in enumerate(splits)
    ]
    model, weights, fixed = started(models)
    train = jax.jit(jax.vmap(partial(train_constant, model)))
    return np.array(train(weights, fixed, stack(splits))).T


def methods(splits):
    """Return label → test NLL per target of every split."""
    auto = [1.0]
    kinds = (CONSTANT, "constant Σ, training and validation residuals")
    full = heads(splits, "cholesky", list(STRENGTHS))
    return {
        "diagonal": heads(splits, "diagonal", [0.0])[0],
        **dict(zip(kinds, constants(splits), strict=True)),
        **{f"full, {name}": f for name, f in zip(STRENGTHS.values(), full, strict=True)},
        '"auto", BalancedNegativeLogLikelihood': heads(
            splits, "cholesky", auto, "BalancedNegativeLogLikelihood"
        )[0],
        '"auto", started at ridge residuals': heads(
            splits, "cholesky", auto, of_residuals=True
        )[0],
        '"auto", BalancedNegativeLogLikelihood, started at ridge residuals': heads(
            splits, "cholesky", auto, "BalancedNegativeLogLikelihood", of_residuals=True
        )[0],
    }  # fmt: skip


def table(name, n, scores):
    """Format one table; the reference is the simple model with the better median."""
    reference = min((scores["diagonal"], scores[CONSTANT]), key=np.median)
    yield f"\n## {name}, {n} rows ({n - n // 4} of them for training)\n"
    yield "| method | median | mean | worst | above the better simple one: median (worst) |"
    yield "| --- | --- | --- | --- | --- |"
    for label, row in scores.items():
        above = row - reference
        yield (
            f"| {label} | {np.median(row):.3f} | {row.mean():.3f} | {row.max():.3f} | "
            f"{np.median(above):+.3f} ({above.max():+.3f}) |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--splits", type=int, default=10)
    known = ["{}:{}".format(*cell) for cell in CELLS]
    parser.add_argument("--cells", nargs="+", choices=known, default=known)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/small_tables.md"))
    arguments = parser.parse_args()

    began = time.process_time()
    lines = []
    for name, n in (cell for cell in CELLS if "{}:{}".format(*cell) in arguments.cells):
        splits = [split(name, n, seed, arguments.data) for seed in range(arguments.splits)]
        cell = list(table(name, n, methods(splits)))
        print("\n".join(cell), f"\n{time.process_time() - began:.0f} CPU seconds", flush=True)
        lines.extend(cell)
        write(lines, arguments, time.process_time() - began)


def write(lines, arguments, seconds):
    """Write the tables finished so far."""
    head = (
        f"Test NLL per target in nats, {arguments.splits} paired splits, jax, "
        f"{seconds:.0f} CPU seconds in all. The reference of the last column "
        "is the diagonal head or constant Σ from training residuals, the one with the lower "
        "median; differences are taken split by split, and smaller is better."
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join([head, *lines]) + "\n")


if __name__ == "__main__":
    main()
