"""Shared code of the air-quality examples: the table, its split, and one trained model.

The table of the US Environmental Protection Agency has one row per monitoring station and day, with
place, time and land use as 15 inputs and the daily maxima of six pollutants as targets. `--data`
is its CSV file: comma-separated numbers with a header; the columns that start with `max_` are the
targets.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

import keras_mvn as kmvn

SIZES = {"train": 0.6, "validation": 0.1, "calibration": 0.1}  # the rest is for testing
UNITS = {"PM2.5": "µg/m³", "NO2": "ppb", "O3": "ppm", "PM10": "µg/m³", "CO": "ppm", "SO2": "ppb"}


class Part(NamedTuple):
    """Inputs (n, 15) and targets (n, 6), in their original units."""

    x: np.ndarray
    y: np.ndarray


class Air(NamedTuple):
    """One random split of the table, and the names of its columns."""

    train: Part
    validation: Part
    calibration: Part
    test: Part
    inputs: list[str]
    targets: list[str]


def arguments(description: str) -> argparse.Namespace:
    """Parse the options common to these examples."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("air.csv"), help="CSV file of the table")
    parser.add_argument("--out", type=Path, default=Path("keras-mvn-examples"), help="results")
    parser.add_argument("--seed", type=int, default=0, help="seed of split and weights")
    options = parser.parse_args()
    if not options.data.is_file():
        parser.error(f"there is no file {options.data}; pass the table with --data PATH")
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def load(path: Path, seed: int = 0) -> Air:
    """Load the table and split it at random with this seed."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    table = np.array(rows, dtype=np.float64)
    target = np.array([name.startswith("max_") for name in header])
    order = np.random.default_rng(seed).permutation(len(table))
    ends = np.cumsum([round(share * len(table)) for share in SIZES.values()])
    parts = [
        Part(table[chosen][:, ~target], table[chosen][:, target])
        for chosen in np.split(order, ends)
    ]
    inputs = [name for name in header if not name.startswith("max_")]
    targets = [name.removeprefix("max_") for name in header if name.startswith("max_")]
    return Air(*parts, inputs, targets)


def build(air: Air, covariance: str = "cholesky") -> keras.Model:
    """Build an untrained network for this table, adapted to its inputs and targets."""
    head = kmvn.layers.MultivariateNormalHead(
        len(air.targets), covariance, target_names=air.targets, name="head"
    )
    head.adapt(air.train.y)
    variance = air.train.x.var(axis=0)
    normalization = keras.layers.Normalization(  # a land use absent from training: unscaled
        mean=air.train.x.mean(axis=0), variance=np.where(variance > 0, variance, 1.0)
    )
    hidden = [keras.layers.Dense(64, "gelu") for _ in range(2)]
    model = keras.Sequential([keras.Input((len(air.inputs),)), normalization, *hidden, head])
    optimizer = keras.optimizers.Adam(2e-3, use_ema=True, ema_momentum=0.99)
    model.compile(optimizer, loss=kmvn.losses.BalancedNegativeLogLikelihood(covariance))
    return model


def callbacks() -> list[keras.callbacks.Callback]:
    """Return callbacks that validate averaged weights and keep the best ones."""
    return [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
    ]


def train(air: Air, out: Path, seed: int = 0, covariance: str = "cholesky") -> keras.Model:
    """Train the model of this split once, and keep it in the results folder."""
    path = out / f"air-{covariance}-{seed}.keras"
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(seed)
    model = build(air, covariance)
    print(f"training {path.name} (kept for the next example) ...", flush=True)
    model.fit(
        *air.train,
        validation_data=air.validation,
        epochs=100,
        batch_size=128,
        callbacks=callbacks(),
        verbose=0,
    )
    model.save(path)
    return model


def predict(model: keras.Model, x: np.ndarray) -> kmvn.MultivariateNormal:
    """Return the predicted distributions of these rows."""
    return model.layers[-1].distribution(model.predict(x, verbose=0, batch_size=1024))
