"""Compare cross-fitting with rows held out for stopping and calibration.

    python benchmarks/cross_fitting.py simulate --rows 100 300 1000 --seeds 20
    python benchmarks/cross_fitting.py tables --data FOLDER --tables jura,slump --seeds 0 1 2

`simulate` draws tables with known errors, normal or of a Student's t with ν = 5, whose covariance
depends on an input, and tells on 4000 new rows how many are in the joint 90 % regions of what is
delivered: the mean over seeds, its standard error, and the KL-like gap to the true NLL per target.
`tables` splits real tables 80/20 and standardizes targets by the training rows: NLL per target
(`cell` where values repeat), energy score and RMSE per target, rows in 90 % regions, seconds.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from keras_mvn import MultivariateNormal, MultivariateStudentT, scores
from keras_mvn.estimator import MultivariateNormalRegressor
from tails import divided

METHODS = {
    "held out": {"cv": None},
    "held out, 5 networks": {"cv": None, "n_members": 5},
    "cross-fitting": {"cv": 5},
    "cross-fitting, no calibration": {"cv": 5, "calibration": None},
    "cross-fitting, coverage": {"cv": 5, "calibration": "coverage"},
}


def truth(rng, n, tails):
    """Return inputs, targets and the distributions they are drawn from."""
    x = rng.normal(size=(n, 4))
    mean = np.stack([np.sin(x[:, 0]) + x[:, 1], 0.5 * x[:, 1] * x[:, 2], x[:, 3]], axis=1)
    root = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.3, 0.2, 0.9]])
    factor = (0.3 + 0.2 * np.abs(x[:, :1]))[..., None] * root
    answer = (
        MultivariateNormal(mean, scale_tril=factor)
        if tails == "normal"
        else MultivariateStudentT(mean, 5.0, scale_tril=factor)
    )
    return x, answer.sample(1, int(rng.integers(2**31)))[0], answer


def simulate(arguments, chosen):
    print("errors   rows method                          in 90 %    ±   NLL above truth   s")
    for tails in arguments.tails:
        for rows in arguments.rows:
            found = {method: [] for method in chosen}
            for seed in range(arguments.seeds):
                rng = np.random.default_rng([seed, rows])
                x, y, _ = truth(rng, rows, tails)
                new_x, new_y, answer = truth(rng, 4000, tails)
                best = -answer.log_prob(new_y).mean() / 3
                for method in chosen:
                    began = time.perf_counter()
                    model = MultivariateNormalRegressor(random_state=seed, **METHODS[method])
                    predicted = model.fit(x, y).predict_distribution(new_x)
                    found[method].append(
                        (
                            predicted.ellipsoid(0.9).contains(new_y).mean(),
                            -predicted.log_prob(new_y).mean() / 3 - best,
                            time.perf_counter() - began,
                        )
                    )
            for method, values in found.items():
                inside, gap, seconds = np.array(values).T
                error = inside.std(ddof=1) / np.sqrt(len(inside))
                print(
                    f"{tails:7s} {rows:5d} {method:30s} {inside.mean():8.3f} {error:6.3f}"
                    f" {gap.mean():12.3f} {seconds.mean():10.1f}",
                    flush=True,
                )


def tables(arguments, chosen):
    print("table  seed method                           NLL   cell  energy   RMSE  in 90 %     s")
    for name in arguments.tables.split(","):
        for seed in arguments.seed:
            x, y, train, test = divided(arguments.data, name, arguments.limit, seed)
            for method in chosen:
                began = time.perf_counter()
                model = MultivariateNormalRegressor(random_state=seed, **METHODS[method])
                model.fit(x[train], y[train])
                seconds = time.perf_counter() - began
                found = scores.evaluate(
                    model.predict_distribution(x[test]), y[test],
                    missing="marginalize", target_scale=1.0, levels=0.9,
                    resolution=model.head_.resolution,
                )  # fmt: skip
                cell = found["cell_nll_per_target"].mean if "cell_nll" in found else np.nan
                print(
                    f"{name:6s} {seed:4d} {method:30s} {found['nll_per_target'].mean:6.3f}"
                    f" {cell:6.3f} {found['energy_score'].mean / np.sqrt(y.shape[1]):7.4f}"
                    f" {found['rmse'].mean:6.3f} {found['coverage_90'].mean:8.3f} {seconds:6.1f}",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["simulate", "tables"])
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--tails", nargs="+", default=["normal", "t"])
    parser.add_argument("--seeds", type=int, default=20, help="number of simulated tables")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tables", default="jura,slump,edm,atp1d,energy")
    parser.add_argument("--seed", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--limit", type=int, default=6000)
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:3])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    {"simulate": simulate, "tables": tables}[arguments.what](arguments, arguments.methods)


if __name__ == "__main__":
    main()
