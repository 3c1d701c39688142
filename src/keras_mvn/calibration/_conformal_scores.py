"""Conformal regions and intervals at any level, from the errors of calibration rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import probability
from keras_mvn._core.types import Array
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["ConformalScores"]


@final
@dataclass(frozen=True, eq=False)
class ConformalScores:
    """What `SplitConformal` learns for one level, kept for all: the errors themselves.

    A region holds a new row, an interval a new value, with probability ≥ level, if calibration
    rows and new row are exchangeable; whatever the model is worth.
    """

    squared_distances: Array
    """Squared Mahalanobis distances: (n,)."""
    absolute_errors: Array
    """|y − μ|/σ: (n, d)."""

    @classmethod
    def fit(cls, normal: MultivariateNormal, y: Any) -> Self:
        """Of predictions for rows that were not trained on."""
        rows = complete_rows(normal, y, 'calibration="conformal"')
        return cls(rows.squared_distances, np.abs(rows.standardized()))

    def region(self, normal: MultivariateNormal, level: float) -> Ellipsoid:
        """Ellipsoids around these predictions."""
        return Ellipsoid(normal, self._quantile(self.squared_distances, level))

    def interval(
        self, normal: MultivariateNormal, level: float, simultaneous: str | None
    ) -> tuple[Array, Array]:
        """Intervals of each target alone; with `simultaneous`, of all at once."""
        errors = self.absolute_errors
        if simultaneous is not None:
            errors = np.repeat(errors.max(axis=1, keepdims=True), errors.shape[1], axis=1)
        reach = np.array([self._quantile(column, level) for column in errors.T]) * normal.stddev
        return normal.mean - reach, normal.mean + reach

    def _quantile(self, scores: Array, level: float) -> float:
        found = conformal_quantile(scores, probability(level, "level"))
        warn_if_unbounded(found, len(scores), level, 'calibration="conformal"')
        return found
