"""Compare tails on real tables: a normal, a Student's t, an ensemble of four normals, and "auto".

    python benchmarks/tails.py --data FOLDER --tables jura,air --seeds 0 1 2

Rows are split 80/20; of the training rows the estimator takes 15 % for stopping (and for the choice
of "auto") and none for calibration. Targets are standardized by the training rows. Figures are for
the test rows: NLL per target in nats, energy score and RMSE per target in standard deviations,
share of rows in their 90 % regions. Where targets repeat a few values (scpf, edm, wq, births1),
densities on these values can be made as high as one likes: `cell` is the NLL per target of the
rounding cell, with the resolution that `adapt` finds, and `worst` the NLL of the worst row.
"no floor" methods leave out the floor of the scales, `min_scale`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from keras_mvn import scores
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.layers import _min_scale

TARGETS = {
    "jura": 3, "slump": 3, "edm": 2, "scpf": 3, "atp1d": 6, "wq": 14, "births1": 2, "casp": 2
}  # fmt: skip
METHODS = {
    "normal": {"tails": "normal"},
    "t": {"tails": "t"},
    "plain t": {"tails": "t", "loss": "nll"},
    "t per row": {"tails": "t_per_row"},
    "four normals": {"tails": "normal", "n_members": 4},
    "auto": {"tails": "auto"},
    "normal no floor": {"tails": "normal"},
    "t no floor": {"tails": "t"},
}


def read(data, name, limit, rng):
    """Return standardizable inputs and targets of a table, at most `limit` rows."""
    path = {"air": "air.csv", "energy": "energy_efficiency.csv", "uci": "air_quality_uci.csv"}
    with (data / path.get(name, f"suite/{name}.csv")).open(encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file)
    rows = [row for row in rows if any(row)]
    columns = {h: [row[i] for row in rows] for i, h in enumerate(header) if h}
    targets = _targets(name, list(columns))
    numbers = {h: _numbers(values, name) for h, values in columns.items()}
    y = np.stack([numbers[t] for t in targets], axis=1)
    x = [_inputs(numbers[h], columns[h]) for h in columns if h not in targets and h not in _IGNORED]
    kept = rng.permutation(np.flatnonzero(~np.isnan(y).all(axis=1)))[:limit]
    return np.hstack(x)[kept], y[kept]


_IGNORED = ("Date", "Time")


def _targets(name, columns):
    if name == "air":
        return [c for c in columns if c.startswith("max_")]
    if name == "energy":
        return ["Y1", "Y2"]
    if name == "uci":
        return [c for c in columns if c.endswith("(GT)")]
    return ["y0", "y1"] if name == "casp" else columns[-TARGETS[name] :]


def _numbers(values, name):
    def number(text):
        try:
            found = float(text)
        except ValueError:
            return np.nan
        return np.nan if name == "uci" and found == -200 else found

    return np.array([number(v) for v in values])


def _inputs(numbers, texts):
    """One column of numbers with the median for gaps, or one for each text."""
    if np.isnan(numbers).mean() > 0.5:
        names = sorted(set(texts))[:50]
        return np.stack([np.array(texts) == one for one in names], axis=1).astype(float)
    return np.where(np.isnan(numbers), np.nanmedian(numbers), numbers)[:, None]


def divided(data, name, limit, seed):
    """Return inputs, targets standardized by the training rows, these rows, and a fifth to test."""
    x, y = read(data, name, limit, np.random.default_rng(seed))
    test, train = np.split(np.arange(len(y)), [len(y) // 5])
    mean, sd = np.nanmean(y[train], axis=0), np.nanstd(y[train], axis=0)
    return x.astype("float32"), (y - mean) / np.where(sd > 0, sd, 1.0), train, test


@contextlib.contextmanager
def without_floor():
    """Heads that adapt no floor."""
    found_in = _min_scale.found_in
    _min_scale.found_in = lambda moments: (found_in(moments)[0], 0.0 * moments.mean)
    try:
        yield
    finally:
        _min_scale.found_in = found_in


def trained(method, seed, x, y):
    options = {
        "calibration": None,
        "cv": None,
        "embedding": None,
        "random_state": seed,
        **METHODS[method],
    }
    with without_floor() if "no floor" in method else contextlib.nullcontext():
        return MultivariateNormalRegressor(**options).fit(x, y)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", default="jura,air,births1,casp,scpf,energy,uci")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--limit", type=int, default=6000)
    parser.add_argument("--methods", default=",".join(METHODS))
    arguments = parser.parse_args()
    chosen = arguments.methods.split(",")
    print("table    seed method              NLL   cell  energy   RMSE  in 90 %   ν    worst     s")
    for name in arguments.tables.split(","):
        for seed in arguments.seeds:
            x, y, train, test = divided(arguments.data, name, arguments.limit, seed)
            for method in chosen:
                began = time.perf_counter()
                model = trained(method, seed, x[train], y[train])
                seconds = time.perf_counter() - began
                inputs = x[test]
                answer = (
                    model.ensemble_.predict(inputs)
                    if hasattr(model, "ensemble_")
                    else model.predict_distribution(inputs)
                )
                found = scores.evaluate(
                    answer, y[test], missing="marginalize", target_scale=1.0, levels=0.9,
                    resolution=model.head_.resolution,
                )  # fmt: skip
                cell = found["cell_nll_per_target"].mean if "cell_nll" in found else np.nan
                worst = scores.log_score(answer, y[test], "marginalize").max()
                nu = getattr(answer, "degrees_of_freedom", np.inf)
                print(
                    f"{name:8s} {seed:4d} {method:16s} {found['nll_per_target'].mean:6.3f}"
                    f" {cell:6.3f} {found['energy_score'].mean / np.sqrt(y.shape[1]):7.4f}"
                    f" {found['rmse'].mean:6.3f} {found['coverage_90'].mean:8.3f}"
                    f" {np.median(nu):5.3g} {worst:8.3g} {seconds:6.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
