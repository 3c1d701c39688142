"""Conformal regions and intervals at any level, from the errors of calibration rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import probability
from keras_mvn._core.types import Array
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["ConformalScores"]


@final
@dataclass(frozen=True, eq=False)
class ConformalScores:
    """The calibration errors themselves, for conformal regions and intervals at every level.

    Where `SplitConformal` keeps one quantile, this keeps all errors. A region contains a new row,
    and an interval a new value, with probability ≥ level if the calibration rows and the new row
    are exchangeable, however poor the model is.
    """

    squared_distances: Array
    """Squared Mahalanobis distances of the calibration rows: (n,)."""
    absolute_errors: Array
    """`|y − μ|/s` with s² = diag Σ: (n, d)."""

    @classmethod
    def fit(cls, normal: Distribution, y: Any) -> Self:
        """Compute the scores from predictions for rows that were not used for training."""
        rows = complete_rows(normal, y, 'calibration="conformal"')
        return cls(rows.squared_distances, np.abs(rows.in_scales()))

    def region(self, normal: Distribution, level: float) -> Ellipsoid:
        """Return ellipsoids around these predictions that have coverage `level`."""
        return Ellipsoid(
            normal.require_elliptical("predict_region"),
            self._quantile(self.squared_distances, level),
        )

    def interval(
        self, normal: Distribution, level: float, simultaneous: str | None
    ) -> tuple[Array, Array]:
        """Return intervals for each target alone; with `simultaneous`, for all targets jointly."""
        errors = self.absolute_errors
        if simultaneous is not None:
            errors = np.repeat(errors.max(axis=1, keepdims=True), errors.shape[1], axis=1)
        reach = np.array([self._quantile(column, level) for column in errors.T])
        reach = reach * normal.require_elliptical("interval").scale_stddev
        return normal.center - reach, normal.center + reach

    def _quantile(self, scores: Array, level: float) -> float:
        found = conformal_quantile(scores, probability(level, "level"))
        warn_if_unbounded(found, len(scores), level, 'calibration="conformal"')
        return found
