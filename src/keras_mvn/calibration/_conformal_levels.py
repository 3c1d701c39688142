"""Conformal regions and intervals of mixtures, from how probable calibration rows were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import probability
from keras_mvn._core.types import Array
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import matched_rows
from keras_mvn.distributions.base import Distribution

__all__ = ["ConformalLevels"]


@final
@dataclass(frozen=True, eq=False)
class ConformalLevels:
    """What `ConformalScores` is for elliptical distributions, for those with several modes.

    Source: Izbicki, Shimizu & Stern, "CD-split and HPD-split", JMLR 23 (2022), for regions;
    Chernozhukov, Wüthrich & Zhu, "Distributional conformal prediction", PNAS 118 (2021), for
    intervals.
    """

    nonconformity: Array
    """`Distribution.nonconformity` of the calibration rows: (n,)."""
    levels: Array
    """Level of the central interval that ends at the observed value, `|2 F(y) − 1|`: (n, d)."""

    @classmethod
    def fit(cls, answer: Distribution, y: Any) -> Self:
        """Compute the scores from predictions for rows that were not used for training."""
        rows = matched_rows(answer, y, "raise", 'calibration="conformal"')
        levels = np.abs(2.0 * rows.answer.marginal_cdf(rows.y) - 1.0)
        return cls(rows.answer.nonconformity(rows.y), levels)

    def region(self, answer: Distribution, level: float) -> Any:
        """Return regions of highest density of these predictions that have coverage `level`."""
        return answer.region_up_to(self._quantile(self.nonconformity, level))

    def interval(
        self, answer: Distribution, level: float, simultaneous: str | None
    ) -> tuple[Array, Array]:
        """Return intervals for each target alone; with `simultaneous`, for all targets jointly."""
        scores = self.levels
        if simultaneous is not None:
            scores = np.repeat(scores.max(axis=1, keepdims=True), scores.shape[1], axis=1)
        found = np.array([self._quantile(column, level) for column in scores.T])
        bounded = found < 1.0
        inner = np.where(bounded, found, 0.5)
        ends = [
            np.stack(
                [answer.quantile(0.5 + 0.5 * sign * p)[..., j] for j, p in enumerate(inner)],
                axis=-1,
            )
            for sign in (-1.0, 1.0)
        ]
        return np.where(bounded, ends[0], -np.inf), np.where(bounded, ends[1], np.inf)

    def _quantile(self, scores: Array, level: float) -> float:
        found = conformal_quantile(scores, probability(level, "level"))
        warn_if_unbounded(found, len(scores), level, 'calibration="conformal"')
        return found
