"""Calibration rows: predictions and observed targets that a recalibration can be fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.checks import as_numbers
from keras_mvn._core.targets import checked_missing, in_order, observed_targets, target_names_of
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._require import require_normal
from keras_mvn.scores._observations import Observations

__all__ = ["calibration_rows", "complete_rows"]


def calibration_rows(
    normal: MultivariateNormal, y: Any, missing: str, who: str, every_target: bool = True
) -> Observations:
    """Predictions and observations, whatever their batch axes, as rows.

    Args:
        normal: predictions.
        y: what was observed.
        missing: as in `Recalibration.fit`.
        who: wants to know, for messages.
        every_target: whether each target must have been observed at least once, or any.

    Raises:
        ValueError: no rows, shapes that don't fit, values that are not finite, or a target that
            was never observed.

    """
    require_normal(normal)
    values, _ = observed_targets(y, missing, normal.target_names)
    if values.shape != normal.mean.shape:
        raise ValueError(
            f"y has shape {values.shape}; the predictions are for {normal.mean.shape}, one row "
            "each."
        )
    if values.size == 0:
        raise ValueError(f"{who} needs at least one calibration row; received none.")
    rows = Observations.read(normal, y, missing)
    unseen = np.flatnonzero(~rows.is_observed.any(axis=0))
    if len(unseen) and (every_target or len(unseen) == normal.event_size):
        names = target_names_of(normal.target_names, normal.event_size)
        raise ValueError(
            f"{who}: no row of y has a value of {[names[i] for i in unseen]}. Leave such targets "
            "out: normal.marginal(...)."
        )
    return rows


def complete_rows(
    normal: MultivariateNormal, y: Any, who: str, missing: str = "raise"
) -> Observations:
    """The same for fits that cannot use rows with gaps.

    Raises:
        ValueError: as `calibration_rows`; NaN, whatever `missing` says.

    """
    checked_missing(missing)
    require_normal(normal)
    values = np.asarray(as_numbers(in_order(y, normal.target_names)), dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(
            f"{who} takes rows without gaps; y holds NaN. Pass only complete "
            "rows, if what is missing does not depend on its value; Temperature and PerTarget take "
            "rows with gaps (missing='marginalize')."
        )
    return calibration_rows(normal, values, "raise", who)
