"""Where a covariance that depends on x gains nothing: blood-serum values of diabetes patients.

    python examples/diabetes.py --seeds 5

Six measurements of each patient (s1…s6), predicted jointly from age, sex, body mass index and
blood pressure: n = 442, real units, strongly correlated errors. The table ships with scikit-learn.
The full covariance describes the errors far better than a diagonal one, but it hardly depends on
the inputs, and 221 training rows are few: a constant Σ does just as well. Medians over the splits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mvn import calibration, layers, losses, scores
from keras_mvn._core.types import Array
from keras_mvn.distributions import MultivariateNormal

LEVEL = 0.9
SIZES = {"train": 0.5, "validation": 0.15, "calibration": 0.15}  # the rest is test
METHODS = ("constant Σ", "diagonal", "full Cholesky", "+ temperature")
"""Σ of an MSE network's residuals; two heads; the full head recalibrated by a temperature."""


class Part(NamedTuple):
    """Inputs (n, 4) and targets (n, 6)."""

    x: Array
    y: Array


class Split(NamedTuple):
    """One random split of the table, and the names of its targets."""

    train: Part
    validation: Part
    calibration: Part
    test: Part
    test_rows: np.ndarray
    target_names: tuple[str, ...]


class Scores(NamedTuple):
    """Scores of one method on the test rows of one split."""

    nll_per_target: float
    rmse: float
    coverage: float
    log_volume: float


@dataclass(frozen=True)
class Outcome:
    """Results of one split: scores and test predictions by method, and the full model."""

    split: Split
    scores: dict[str, Scores]
    predictions: dict[str, MultivariateNormal]
    model: keras.Model
    temperature: float


def load(seed: int) -> Split:
    """Load the diabetes table and split it at random with this seed."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    x, y = data.data[:, :4], data.data[:, 4:]
    order = np.random.default_rng(seed).permutation(len(x))
    ends = np.cumsum([round(share * len(x)) for share in SIZES.values()])
    train, validation, held_out, test = np.split(order, ends)
    names = tuple(str(name) for name in data.feature_names[4:])
    parts = [Part(x[rows], y[rows]) for rows in (train, validation, held_out, test)]
    return Split(parts[0], parts[1], parts[2], parts[3], test, names)


def run(seed: int, report: Callable[[str], None] = lambda _: None) -> Outcome:
    """Train the three networks on one split, and score the four methods on its test rows."""
    split = load(seed)
    report("MSE net")
    predictions = {METHODS[0]: _constant_covariance(split, seed)}
    report("diagonal")
    _, diagonal = _train(split, seed, "diagonal")
    predictions[METHODS[1]] = diagonal(split.test.x)
    report("full Cholesky")
    model, full = _train(split, seed, "cholesky")
    predictions[METHODS[2]] = full(split.test.x)
    temperature = calibration.Temperature.fit(full(split.calibration.x), split.calibration.y)
    predictions[METHODS[3]] = temperature.apply(predictions[METHODS[2]])
    unit = split.train.y.std(axis=0)
    scored = {name: _score(normal, split.test.y, unit) for name, normal in predictions.items()}
    return Outcome(split, scored, predictions, model, temperature.temperature)


def _network(split: Split, seed: int, head: keras.layers.Layer) -> keras.Model:
    keras.utils.set_random_seed(seed)  # every method starts from the same hidden layers
    normalization = keras.layers.Normalization()
    normalization.adapt(split.train.x)
    hidden = [keras.layers.Dense(32, "gelu"), keras.layers.Dense(32, "gelu")]
    return keras.Sequential([keras.Input((split.train.x.shape[1],)), normalization, *hidden, head])


def _fit(model: keras.Model, train: Part, validation: Part, loss: Any) -> None:
    model.compile(keras.optimizers.Adam(2e-3), loss=loss)
    stop = keras.callbacks.EarlyStopping(patience=20, restore_best_weights=True)
    model.fit(
        *train, validation_data=validation, epochs=300, batch_size=64, callbacks=[stop], verbose=0
    )


def _train(
    split: Split, seed: int, covariance: str
) -> tuple[keras.Model, Callable[[Array], MultivariateNormal]]:
    head = layers.MultivariateNormalHead(
        len(split.target_names), covariance, target_names=split.target_names
    )
    head.adapt(split.train.y)
    model = _network(split, seed, head)
    _fit(model, split.train, split.validation, losses.BalancedNegativeLogLikelihood(covariance))
    return model, lambda x: head.distribution(model.predict(x, verbose=0)).moments()


def _constant_covariance(split: Split, seed: int) -> MultivariateNormal:
    """The usual baseline: a network for the mean, and one residual covariance for all rows."""
    center, unit = split.train.y.mean(axis=0), split.train.y.std(axis=0)
    model = _network(split, seed, keras.layers.Dense(len(split.target_names)))
    train, validation = (
        Part(part.x, (part.y - center) / unit) for part in (split.train, split.validation)
    )
    _fit(model, train, validation, "mse")
    seen = [split.train, split.validation]
    residuals = np.concatenate(
        [part.y - center - unit * model.predict(part.x, verbose=0) for part in seen]
    )
    mean = center + unit * model.predict(split.test.x, verbose=0)
    covariance = residuals.T @ residuals / len(residuals)
    return MultivariateNormal(mean, covariance=covariance, target_names=split.target_names)


def _score(normal: MultivariateNormal, y: Array, unit: Array) -> Scores:
    names = ("nll_per_target", "rmse", "coverage_90", "log_volume_90")
    found = scores.evaluate(normal, y, target_scale=unit, levels=(LEVEL,), scores=names)
    return Scores(*(float(found[name].mean) for name in names))


def summarize(outcomes: list[Outcome]) -> dict[str, list[tuple[float, float, float]]]:
    """Return, for each method and score, (median, smallest, largest) over the splits."""
    table = {}
    for method in METHODS:
        columns = np.array([outcome.scores[method] for outcome in outcomes]).T
        table[method] = [(float(np.median(c)), float(c.min()), float(c.max())) for c in columns]
    return table


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of random splits")
    summary = summarize([run(seed) for seed in range(parser.parse_args().seeds)])
    print(
        f"{'covariance':15s} {'NLL/target':>10s} {'RMSE':>6s} {'in 90 %':>8s} {'log-volume':>10s}"
    )
    for method, scored in summary.items():
        nll, rmse, coverage, volume = (median for median, _, _ in scored)
        print(f"{method:15s} {nll:10.2f} {rmse:6.2f} {coverage:8.0%} {volume:10.1f}")


if __name__ == "__main__":
    main()
