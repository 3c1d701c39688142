"""Compare the methods of recalibration on held-out rows of two real tables.

Of at most 2000 random rows, half are for training, a tenth for early stopping and a fifth for
calibration; at most 2000 others are the test rows. Small calibration sets are the first rows of the
same fifth. Two hidden layers of 64 (gelu), standardized inputs, a Cholesky head with
`head.adapt(y_train)`, Adam (2e-3), batches of 64 rows, at most 300 epochs, early stopping with a
patience of 30, and the weights with the best validation loss. Random splits; all methods are fitted
to the same predictions for the same calibration rows.

* energy_efficiency.csv: UCI 242, 8 inputs, heating and cooling load.
* air.csv: US EPA air quality, 15 inputs, 6 pollutants.

The results are means over splits ± standard deviations between splits:

* test NLL per target, in nats, in the units of y; methods that only give regions (radial isotonic,
  split conformal) have no density;
* joint coverage: the share of test rows inside their 90 % region. With perfect recalibration, it
  varies by about √(0.9 · 0.1 (1/n_test + 1/n_calibration)) from split to split;
* size: the volume of the 90 % regions to the power 1/d, relative to no recalibration (geometric
  mean over rows);
* the NLL of each method above that of one temperature, split by split: negative is better.

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python benchmarks/recalibration.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import numpy as np

import keras_mvn as kmvn
from keras_mvn.calibration import (
    MatrixScaling,
    PerTarget,
    RadialIsotonic,
    SplitConformal,
    Temperature,
)
from tables import air, divide, energy

LEVEL = 0.9
EPOCHS, PATIENCE, BATCH = 300, 30, 64
LARGEST = 2000
SMALL = 40
REFERENCE = "one temperature"
TABLES = {"energy": energy, "air": air}
DENSITIES = {
    REFERENCE: Temperature.fit,
    "a factor per target": PerTarget.fit,
    "a factor per target, marginal": lambda normal, y: PerTarget.fit(
        normal, y, objective="marginal"
    ),
    "matrix, no shrinkage": lambda normal, y: MatrixScaling.fit(normal, y, shrinkage=0.0),
    "matrix": MatrixScaling.fit,
}
REGIONS = {
    "radial isotonic": lambda normal, y: RadialIsotonic.fit(normal, y).region,
    "split conformal": lambda normal, y: SplitConformal.fit(normal, y, LEVEL).region,
}


def split(name, seed, data):
    """Return training, validation, calibration and test (x, y)."""
    x, y = TABLES[name](data)
    order = np.random.default_rng(seed).permutation(len(x))
    ends = (np.array([0.5, 0.6, 0.8]) * min(len(x), LARGEST)).astype(int)
    train, validation, calibration, test = np.split(order, ends)
    return divide(x, y, [train, validation, calibration, test[:LARGEST]])


def predictions(train, validation, seed, *others):
    """Train a head, and return its predictions for the other parts."""
    keras.utils.set_random_seed(seed)
    (x, y), head = train, kmvn.layers.MultivariateNormalHead(train[1].shape[1])
    head.adapt(y)
    hidden = [keras.layers.Dense(64, "gelu") for _ in range(2)]
    model = keras.Sequential([keras.Input((x.shape[1],)), *hidden, head])
    model.compile(keras.optimizers.Adam(2e-3), kmvn.losses.NegativeLogLikelihood(head.covariance))
    stop = keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True)
    model.fit(x, y, BATCH, EPOCHS, validation_data=validation, callbacks=[stop], verbose=0)
    return [head.distribution(model.predict(x, 1024, verbose=0)) for x in others]


def judged(region, before, y, normal=None):
    """Return NLL per target (NaN without a density), coverage and size."""
    d = y.shape[1]
    nll = np.nan if normal is None else -normal.log_prob(y).mean() / d
    size = np.exp((region.log_volume - before.log_volume).mean() / d)
    return nll, region.contains(y).mean(), size


def one_split(name, seed, data):
    """Return number of calibration rows → method → (NLL per target, coverage, size)."""
    train, validation, (x, y), (x_test, y_test) = split(name, seed, data)
    held_out, normal = predictions(train, validation, seed, x, x_test)
    sizes = SMALL, len(y)
    return {n: scores_of(held_out[:n], y[:n], normal, y_test) for n in sizes}


def scores_of(held_out, y, normal, y_test):
    """Return method → (NLL per target, coverage, size)."""
    before = normal.ellipsoid(LEVEL)
    scores = {"none": judged(before, before, y_test, normal)}
    for label, fit in DENSITIES.items():
        calibrated = fit(held_out, y).apply(normal)
        scores[label] = judged(calibrated.ellipsoid(LEVEL), before, y_test, calibrated)
    for label, fit in REGIONS.items():
        scores[label] = judged(fit(held_out, y)(normal), before, y_test)
    return scores


def spread(values, digits=3, sign=""):
    return f"{np.mean(values):{sign}.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def tables(name, data, splits):
    """Format the tables of one data set, for few and for all calibration rows."""
    found = [one_split(name, seed, data) for seed in range(splits)]
    test_rows = len(split(name, 0, data)[-1][1])
    for rows in found[0]:
        yield from table(name, rows, test_rows, [one[rows] for one in found])


def table(name, rows, test_rows, scores):
    """Format one table."""
    expected = np.sqrt(LEVEL * (1 - LEVEL) * (1 / rows + 1 / test_rows))
    yield f"\n## {name}: {rows} calibration rows, {test_rows} test rows\n"
    yield (
        f"Coverage of a perfect recalibration would vary by {100 * expected:.1f} points from split "
        "to split.\n"
    )
    yield (
        "| recalibration | NLL per target | above one temperature (splits won) | "
        "coverage of the 90 % region | its size |"
    )
    yield "| --- | --- | --- | --- | --- |"
    for label in scores[0]:
        nll, coverage, size = np.transpose([one[label] for one in scores])
        gap = nll - [one[REFERENCE][0] for one in scores]
        likelihood = "–" if np.isnan(nll).any() else spread(nll)
        above = f"{spread(gap, sign='+')} ({np.sum(gap < 0)} of {len(scores)})"
        if likelihood == "–" or label == REFERENCE:
            above = "–"
        cells = [likelihood, above, f"{spread(100 * coverage, 1)} %", spread(size, 2)]
        yield f"| {label} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recalibration.md"))
    arguments = parser.parse_args()

    began, lines = time.process_time(), []
    for name in arguments.tables:
        for line in tables(name, arguments.data, arguments.splits):
            print(line, flush=True)
            lines.append(line)
    seconds = time.process_time() - began
    head = (
        f"{arguments.splits} random splits of each table, {keras.backend.backend()}, "
        f"{seconds:.0f} CPU seconds; ± is the standard deviation between splits, which share rows. "
        "NLL in nats, smaller is better. What is compared and how: benchmarks/recalibration.py."
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join([head, *lines]) + "\n")


if __name__ == "__main__":
    main()
