"""What drives the uncertainty of a fit, found on its test rows, for the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._training.absent_inputs import predict_beyond
from keras_mvn._training.data import thinned
from keras_mvn.distributions import Distribution
from keras_mvn.explain import LogVolume, Quantity, Stddev, permutation_importance
from keras_mvn.serving.fitted_model import recalibrated
from keras_mvn_cli._explaining import correlations
from keras_mvn_cli.fitting.networks import Network
from keras_mvn_cli.fitting.table import Prepared

__all__ = ["drivers_of"]

MOST_COLUMNS = 300
"""Number of columns above which nothing is said."""

MOST_ROWS, FEWEST_ROWS = 300, 20

MOST_PREDICTIONS = 150_000
"""Number of predicted rows, of all networks together, for which there is time: seconds."""

MOST_REPEATS = 5

MOST_TARGETS = 6
"""Number of targets whose standard deviations are explained."""

KEPT = 8
"""Inputs kept of each quantity."""


def drivers_of(prepared: Prepared, network: Network) -> list[dict[str, Any]]:
    """Return the inputs that move each spread and correlation most; see `explain`."""
    preprocessing, raw = prepared.preprocessing, prepared.raw
    columns, members = len(preprocessing.columns), len(network.predicting)
    if not 0 < columns <= MOST_COLUMNS:
        return []
    affordable = MOST_PREDICTIONS // (columns * members)
    rows = thinned(np.arange(raw.num_rows), min(MOST_ROWS, affordable))
    if len(rows) < FEWEST_ROWS:
        return []
    repeats = min(MOST_REPEATS, affordable // len(rows))

    def predict(table: Any) -> Distribution:
        answer = predict_beyond(network.predicting, preprocessing.inputs(table), None)
        return recalibrated(network.calibration, answer).with_names(preprocessing.targets)

    some = raw.select(preprocessing.columns).take(rows)
    found = permutation_importance(predict, some, _quantities(preprocessing.targets), repeats)
    return [
        {
            "quantity": name,
            "spread": float(found.spread[i]),
            "inputs": [[str(one), value] for one, value in found.ranked(i)[:KEPT]],
        }
        for i, name in enumerate(found.quantities)
    ]


def _quantities(targets: tuple[str, ...]) -> list[Quantity]:
    joint = [LogVolume()] if len(targets) > 1 else []
    return [*map(Stddev, targets[:MOST_TARGETS]), *correlations(targets), *joint]
