"""Calibration rows: predictions and what was observed, checked; in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_mvn._core.checks import as_numbers
from keras_mvn._core.targets import checked_missing, in_order, observed_targets, target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._require import require_normal

__all__ = ["Rows", "calibration_rows", "complete_rows"]

LARGEST_PART = 1 << 23
"""Numbers that an intermediate array may have: 64 MiB."""


class Rows(NamedTuple):
    """n predictions on one batch axis, and what was observed for them."""

    normal: MultivariateNormal
    y: Array
    """(n, d), NaN where not observed."""

    @property
    def observed(self) -> np.ndarray:
        """(n, d), boolean."""
        return ~np.isnan(self.y)

    @property
    def squared_distances(self) -> Array:
        """Of each row in the margin of what was observed: (n,)."""
        return self.normal.mahalanobis(self.y, missing="marginalize") ** 2

    def standardized(self) -> Array:
        """(y − μ)/σ, target by target, NaN where not observed: (n, d)."""
        return (self.y - self.normal.mean) / self.normal.stddev

    def complete(self) -> Rows:
        """The rows without gaps."""
        keep = self.observed.all(axis=-1)
        return Rows(self.normal[keep], self.y[keep])

    def parts(self, entries: int) -> Iterator[Rows]:
        """The rows in parts, for work that takes so many numbers a row."""
        size = max(1, LARGEST_PART // max(entries, 1))
        for start in range(0, len(self.y), size):
            part = slice(start, start + size)
            yield Rows(self.normal[part], self.y[part])


def calibration_rows(
    normal: MultivariateNormal, y: Any, missing: str, who: str, every_target: bool = True
) -> Rows:
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
    values, observed = observed_targets(y, missing, normal.target_names)
    if values.shape != normal.mean.shape:
        raise ValueError(
            f"y has shape {values.shape}; the predictions are for {normal.mean.shape}, one row "
            "each."
        )
    if values.size == 0:
        raise ValueError(f"{who} needs at least one calibration row; received none.")
    if observed is not None:
        values = np.where(observed > 0, values, np.nan)
    rows = Rows(_on_one_axis(normal), values.reshape(-1, normal.event_size))
    unseen = np.flatnonzero(~rows.observed.any(axis=0))
    if len(unseen) and (every_target or len(unseen) == normal.event_size):
        names = target_names_of(normal.target_names, normal.event_size)
        raise ValueError(
            f"{who}: no row of y has a value of {[names[i] for i in unseen]}. Leave such targets "
            "out: normal.marginal(...)."
        )
    return rows


def complete_rows(normal: MultivariateNormal, y: Any, who: str, missing: str = "raise") -> Rows:
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


def _on_one_axis(normal: MultivariateNormal) -> MultivariateNormal:
    if not normal.batch_shape:
        return normal + np.zeros((1, normal.event_size))
    if len(normal.batch_shape) == 1:
        return normal
    return normal[np.ones(normal.batch_shape, dtype=bool)]
