"""Calibration rows: predictions and observed targets to which a recalibration is fitted."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.checks import as_numbers
from keras_mvn._core.targets import checked_missing, in_order, observed_targets, target_names_of
from keras_mvn.distributions.base import Distribution, require_distribution
from keras_mvn.scores._observations import Observations

__all__ = ["calibration_rows", "complete_rows", "matched_rows", "require_components"]


def calibration_rows(
    answer: Distribution, y: Any, missing: str, who: str, every_target: bool = True
) -> Observations:
    """Return predictions and observations with any batch axes as rows.

    Args:
        answer: predicted distributions, elliptical ones.
        y: (..., d), observed values.
        missing: as in `Recalibration.fit`.
        who: str, name of the caller, for error messages.
        every_target: bool, whether every target must be observed at least once; if False, one
            observed target is enough.

    Raises:
        TypeError: the predictions are not elliptical.
        ValueError: there are no rows, shapes do not match, values are not finite, or a target is
            never observed.

    """
    require_distribution(answer).require_elliptical(who)
    return matched_rows(answer, y, missing, who, every_target)


def matched_rows(
    answer: Distribution, y: Any, missing: str, who: str, every_target: bool = True
) -> Observations:
    """Like `calibration_rows`, for distributions of any kind.

    Raises:
        ValueError: as for `calibration_rows`.

    """
    require_distribution(answer)
    values, observed = observed_targets(y, missing, answer.target_names)
    if values.shape != answer.center.shape:
        raise ValueError(
            f"y has shape {values.shape}; it must have the shape of the predictions, "
            f"{answer.center.shape}."
        )
    if values.size == 0:
        raise ValueError(f"{who} needs at least one calibration row; received none.")
    rows = Observations.of(answer, values, observed)
    unseen = np.flatnonzero(~rows.is_observed.any(axis=0))
    if len(unseen) and (every_target or len(unseen) == answer.event_size):
        names = target_names_of(answer.target_names, answer.event_size)
        raise ValueError(
            f"{who}: no row of y has a value of {[names[i] for i in unseen]}. Drop these targets "
            "with normal.marginal(...)."
        )
    return rows


def require_components(answer: Distribution, who: str) -> None:
    """Check that distributions are elliptical, or mixtures of elliptical ones.

    Raises:
        TypeError: they are neither, or no distributions.

    """
    if require_distribution(answer).parts() is None:
        answer.require_elliptical(who)


def complete_rows(answer: Distribution, y: Any, who: str, missing: str = "raise") -> Observations:
    """Like `calibration_rows`, for fits that cannot use rows with missing values.

    Raises:
        ValueError: as for `calibration_rows`; or y contains NaN, regardless of `missing`.

    """
    checked_missing(missing)
    require_distribution(answer)
    values = np.asarray(as_numbers(in_order(y, answer.target_names)), dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(
            f"{who} needs complete rows; y contains NaN. Pass only complete rows, if whether a "
            "value is missing does not depend on the value; Temperature and PerTarget accept "
            "missing values (missing='marginalize')."
        )
    return calibration_rows(answer, values, "raise", who)
