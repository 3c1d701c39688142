"""Compare the estimator as it comes with what people use today, on tables nobody here tuned on.

    python benchmarks/real_tables.py --data FOLDER --tables jura,air --seeds 0 1 2 3 4

Rows are split 80/20; targets are standardized by the training rows. Methods: ridge regressions and
boosted trees (scikit-learn's, LightGBM) with a constant covariance (Ledoit–Wolf) of 5-fold
out-of-fold errors, NGBoost's multivariate normal (up to three targets), the estimator without trees
(`mean=None`), and the estimator as it comes. Per target: NLL in nats (of the rounding cell where
targets repeat a few values), energy score and RMSE in standard deviations; share of rows in their
50, 90 and 95 % regions; seconds. `--methods "t alone,t ridge,t trees" --limit 2000` compares
networks of one kind alone and over other regressors. `regret`: the NLL of the estimator less that
of the best other method (not of ours). Results are appended to a JSON file, from which `--show`
prints the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_mvn import MultivariateNormal, scores
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.layers import MultivariateNormalHead
from tails import divided

OURS = ("networks", "default", "t alone", "t ridge", "t trees")
TABLES = "jura,slump,edm,energy,scpf,atp1d,wq,births1,casp,air"


def constant_covariance(regressor, x, y, new):
    """Predict by a regressor, with the covariance of its errors in folds."""
    folds = KFold(5, shuffle=True, random_state=0)
    errors = y - cross_val_predict(regressor, x, y, cv=folds)
    covariance = LedoitWolf(assume_centered=True).fit(errors).covariance_
    mean = regressor.fit(x, y).predict(new)
    return MultivariateNormal(mean, covariance=np.tile(covariance, (len(mean), 1, 1)))


def ridge(seed, x, y, new):
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
    return constant_covariance(model, x, y, new)


def boosted_trees(seed, x, y, new):
    model = MultiOutputRegressor(HistGradientBoostingRegressor(random_state=seed))
    return constant_covariance(model, x, y, new)


def lightgbm(seed, x, y, new):
    from lightgbm import LGBMRegressor

    model = MultiOutputRegressor(LGBMRegressor(random_state=seed, verbose=-1, n_jobs=1))
    return constant_covariance(model, x, y, new)


def ngboost(seed, x, y, new):
    from ngboost import NGBRegressor
    from ngboost.distns import MultivariateNormal as Distribution

    if y.shape[1] > 3:
        return None
    own = np.random.default_rng(seed).permutation(len(y))
    stop, rest = np.split(own, [len(y) // 6])
    model = NGBRegressor(
        Distribution(y.shape[1]), n_estimators=1000, verbose=False, random_state=seed
    )
    model.fit(x[rest], y[rest], x[stop], y[stop], early_stopping_rounds=50)
    answer = model.pred_dist(new)
    return MultivariateNormal(answer.loc, covariance=answer.cov)


def estimator(**options):
    def predict(seed, x, y, new):
        model = MultivariateNormalRegressor(random_state=seed, **options).fit(x, y)
        return model.predict_distribution(new)

    return predict


METHODS = {
    "ridge": ridge,
    "trees": boosted_trees,
    "lightgbm": lightgbm,
    "ngboost": ngboost,
    "networks": estimator(mean=None),
    "default": estimator(),
    "one component": estimator(n_components=1),
    **{
        f"t {mean or 'alone'}": estimator(mean=mean, tails="t", embedding=None)
        for mean in (None, "ridge", "trees")
    },
}
COMMON = "ridge,trees,lightgbm,ngboost,networks,default"


def figures(answer, y, resolution):
    found = scores.evaluate(
        answer, y, missing="marginalize", target_scale=1.0, levels=(0.5, 0.9, 0.95),
        resolution=resolution,
    )  # fmt: skip
    nll = "cell_nll_per_target" if "cell_nll_per_target" in found else "nll_per_target"
    return {
        "nll": found[nll].mean,
        "energy": found["energy_score"].mean / np.sqrt(y.shape[1]),
        "variogram": found["variogram_score"].mean,
        "rmse": found["rmse"].mean,
        **{f"coverage_{p}": found[f"coverage_{p}"].mean for p in (50, 90, 95)},
    }


def measure(arguments):
    for name in arguments.tables.split(","):
        for seed in arguments.seeds:
            x, y, train, test = divided(arguments.data, name, arguments.limit, seed)
            head = MultivariateNormalHead(y.shape[1])
            head.adapt(y[train])
            for method in arguments.methods.split(","):
                began = time.perf_counter()
                answer = METHODS[method](seed, x[train], y[train], x[test])
                if answer is None:
                    continue
                seconds = time.perf_counter() - began
                row = {"table": name, "seed": seed, "method": method, "seconds": seconds}
                row |= figures(answer, y[test], head.resolution)
                with arguments.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(_line(row), flush=True)


def _line(row):
    return (
        f"{row['table']:8s} {row['seed']!s:>4s} {row['method']:9s} {row['nll']:7.3f}"
        f" {row['energy']:7.4f} {row['variogram']:9.3f} {row['rmse']:6.3f}"
        f" {row['coverage_50']:5.2f} {row['coverage_90']:5.2f} {row['coverage_95']:5.2f}"
        f" {row['seconds']:6.1f}"
    )


def show(rows):
    """Print means over seeds, and the regret of the default: mean, and two standard errors."""
    latest = {(r["table"], r["seed"], r["method"]): r for r in rows}
    print("table    seeds method        NLL  energy variogram   RMSE  50 %  90 %  95 %      s")
    regrets = {}
    for name in dict.fromkeys(table for table, _, _ in latest):
        of_table = {key[1:]: row for key, row in latest.items() if key[0] == name}
        for method in METHODS:
            own = [row for (_, m), row in of_table.items() if m == method]
            if own:
                mean = {k: np.mean([r[k] for r in own]) for k in own[0] if k not in _TEXTS}
                print(_line({"table": name, "seed": len(own), "method": method, **mean}))
        if any(method not in OURS for _, method in of_table):
            regrets[name] = _regret(of_table)
    print("\nregret of the default against the best other method: NLL per target, 2 s.e.; energy")
    for name, (nll, error, energy, best) in regrets.items():
        print(f"{name:8s} {nll:7.3f} ± {error:.3f} {energy:8.1%}  ({best})")


_TEXTS = ("table", "seed", "method")


def _regret(of_table):
    seeds = sorted({seed for seed, method in of_table if method == "default"})
    others = [m for m in METHODS if m not in OURS and (seeds[0], m) in of_table]

    def values(method, score):
        return np.array([of_table[seed, method][score] for seed in seeds])

    best = min(others, key=lambda m: values(m, "nll").mean())
    lost = values("default", "nll") - values(best, "nll")
    error = 2.0 * lost.std(ddof=1) / np.sqrt(len(lost)) if len(lost) > 1 else np.nan
    least = min(values(m, "energy").mean() for m in others)
    return lost.mean(), error, values("default", "energy").mean() / least - 1.0, best


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tables", default=TABLES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--limit", type=int, default=6000, help="rows of a table")
    parser.add_argument("--methods", default=COMMON)
    parser.add_argument("--results", type=Path, default=Path("real_tables.jsonl"))
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if not arguments.show:
        measure(arguments)
    show([json.loads(line) for line in arguments.results.read_text().splitlines()])


if __name__ == "__main__":
    main()
