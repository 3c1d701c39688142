"""Take important inputs away from the test rows: imputed by the median, and by similar rows.

    python benchmarks/absent_inputs.py --data FOLDER

The estimator with tails "t" and plain inputs; the inputs whose imputation by the median changes the
means most are taken away from all test rows, one by one and three together. NLL per target of
standardized targets, and rows in 90 % regions.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from keras_mvn import scores
from keras_mvn._training.absent_inputs import DONORS, Donors
from keras_mvn.estimator import MultivariateNormalRegressor
from tails import divided


def told(name, what, answer, y):
    nll = scores.log_score(answer, y).mean() / y.shape[1]
    inside = answer.ellipsoid(0.9).contains(y).mean()
    print(f"{name:6s} {what:22s} {nll:6.3f} {inside:8.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", default="air,casp,jura")
    parser.add_argument("--limit", type=int, default=3000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("table  inputs                    NLL  in 90 %")
    for name in arguments.tables.split(","):
        x, y, train, test = divided(arguments.data, name, arguments.limit, 0)
        model = MultivariateNormalRegressor(random_state=0, tails="t", embedding=None)
        complete = model.fit(x[train], y[train]).predict_distribution(x[test])
        told(name, "complete", complete, y[test])
        donors, median = Donors(x[train][:DONORS]), np.median(x[train], axis=0)

        def imputed(columns, x=x[test], median=median):
            found = x.copy()
            found[:, columns] = median[columns]
            return found

        changes = [
            np.mean((model.predict(imputed([j])) - complete.mean) ** 2) for j in range(x.shape[1])
        ]
        largest = np.argsort(changes)[::-1][:3]
        for columns in ([largest[0]], [largest[1]], [largest[2]], largest):
            absent = np.zeros(x[test].shape, bool)
            absent[:, columns] = True
            label = ", ".join(f"x{j}" for j in columns)
            told(name, f"{label}: median", model.predict_distribution(imputed(columns)), y[test])
            answer = donors.predict(model._raw, imputed(columns), absent)
            told(name, f"{label}: similar rows", model.calibration_.apply(answer), y[test])


if __name__ == "__main__":
    main()
