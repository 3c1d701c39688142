"""Joint regions on CASP, by the protocol of Braun et al. 2026; the page braun_2026.md shows them.

    KERAS_BACKEND=jax OMP_NUM_THREADS=1 python docs/papers/braun_2026.py casp.csv --seeds 0 1 2

casp.csv is UCI 265 with targets y0 and y1. Random parts of 70 % training, 10 % stopping, 10 %
calibration, 10 % test; inputs and targets mapped to normal margins by the training rows; the mean
of volume^(1/d) of 90 % regions over the test rows. Each seed takes minutes; results go to
braun_2026.csv beside this file, one line per seed and kind of network.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import pandas
from sklearn.preprocessing import QuantileTransformer

from keras_mvn.calibration import ConformalPredictor
from keras_mvn.estimator import MultivariateNormalRegressor

LEVEL = 0.9
RESULTS = Path(__file__).with_suffix(".csv")
KINDS = {
    "plain": {"tails": "normal", "n_components": 1, "embedding": None},
    "periodic embedding": {
        "tails": "normal",
        "n_components": 1,
        "embedding": "periodic",
        "hidden": (128, 128, 128),
    },
    "mixture of 8": {
        "tails": "normal",
        "n_components": 8,
        "embedding": "periodic",
        "hidden": (128, 128, 128),
    },
}


def regions(x, y, seed, budget, **settings):
    """Return mean volume^(1/d), coverage, and seconds of training."""
    np.random.seed(seed)  # noqa: NPY002  (the paper's own splits)
    order = np.random.permutation(len(x))  # noqa: NPY002
    train, stop, calibration, test = np.split(order, [int(s * len(x)) for s in (0.7, 0.8, 0.9)])
    x, y = (
        QuantileTransformer(output_distribution="normal", random_state=seed)
        .fit(part[train])
        .transform(part)
        for part in (x, y)
    )
    model = MultivariateNormalRegressor(
        mean=None, cv=None, calibration=None, random_state=seed, time_budget=budget, **settings
    )
    began = time.perf_counter()
    model.fit(x[train], y[train], validation_data=(x[stop], y[stop]))
    seconds = time.perf_counter() - began
    held_out, predicted = (model.predict_distribution(x[rows]) for rows in (calibration, test))
    # Ellipsoids, as by SplitConformal; of mixtures, regions of highest density.
    region = ConformalPredictor.fit(held_out, y[calibration]).region(predicted, LEVEL)
    size = np.exp(region.log_volume / y.shape[1]).mean()
    return size, region.contains(y[test]).mean(), seconds


def main() -> None:
    """Run the seeds, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of training")
    options = parser.parse_args()
    table = pandas.read_csv(options.table)
    y = table[["y0", "y1"]].to_numpy(float)
    x = table.drop(columns=["y0", "y1"]).to_numpy(float)
    new = not RESULTS.exists()
    for seed in options.seeds:
        for name in options.kinds:
            size, coverage, seconds = regions(x, y, seed, options.budget, **KINDS[name])
            row = [seed, name, f"{size:.3f}", f"{coverage:.3f}", f"{seconds:.0f}"]
            print(*row, flush=True)
            with RESULTS.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(["seed", "network", "size", "coverage", "seconds"])
                    new = False
                writer.writerow(row)


if __name__ == "__main__":
    main()
