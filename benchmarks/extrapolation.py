"""Train on the lower 70 % of an input, and test on the rest: coverage with and without widening.

    python benchmarks/extrapolation.py --data FOLDER

For the first four inputs of each table with more than 20 values. NLL per target of targets
standardized by the training rows, rows in joint 90 % regions, and the distance of the test rows
beyond the training rows in standard deviations of the input.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from keras_mvn import scores
from keras_mvn.estimator import MultivariateNormalRegressor
from tails import read


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", default="jura,air,casp")
    parser.add_argument("--limit", type=int, default=2500)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("table  input   distance: median, most    as it comes: NLL, in 90 %    not widened")
    for name in arguments.tables.split(","):
        x, y = read(arguments.data, name, arguments.limit, np.random.default_rng(0))
        x = x.astype("float32")
        varied = [j for j in range(x.shape[1]) if len(np.unique(x[:, j])) > 20]
        for j in varied[:4]:
            order = np.argsort(x[:, j], kind="stable")
            train, test = np.split(order, [int(0.7 * len(y))])
            targets = (y - y[train].mean(axis=0)) / y[train].std(axis=0)
            model = MultivariateNormalRegressor(random_state=0, tails="t", embedding=None)
            answer = model.fit(x[train], targets[train]).predict_distribution(x[test])
            model._donors = None
            plain = model.predict_distribution(x[test])
            far = (x[test, j] - x[train, j].max()) / x[train, j].std()
            figures = [
                f"{scores.log_score(one, targets[test]).mean() / y.shape[1]:6.3f}"
                f" {one.ellipsoid(0.9).contains(targets[test]).mean():6.3f}"
                for one in (answer, plain)
            ]
            print(
                f"{name:6s} {j:5d} {np.median(far):12.1f} {far.max():8.1f}"
                f" {figures[0]:>24s} {figures[1]:>20s}",
                flush=True,
            )


if __name__ == "__main__":
    main()
