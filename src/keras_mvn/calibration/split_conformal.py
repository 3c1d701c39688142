"""Joint regions with a guaranteed coverage, whatever the distribution of the errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

from keras_mvn._core.checks import probability
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration.base import Calibration, register
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["SplitConformal"]


@final
@register
@dataclass(frozen=True)
class SplitConformal(Calibration):
    """Ellipsoids that hold a new row with probability ≥ level, even if the model is wrong.

    The squared radius is the ⌈(n + 1) level⌉-th smallest squared Mahalanobis distance of n
    calibration rows. If these and the new row are exchangeable (independent draws from one
    distribution are), level ≤ P(new y inside) ≤ level + 1/(n + 1), the second for distances without
    ties: on average over rows and calibration sets, not for each x. A better Σ makes the regions
    smaller, not safer.

    Args:
        squared_radius: in Mahalanobis units, infinite where n was too small.
        level: the coverage that it is for.

    Source: Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002; for
    ellipsoids, Johnstone & Cox, "Conformal uncertainty sets for robust optimization", COPA 2021.

    >>> import numpy as np
    >>> normal = MultivariateNormal(np.zeros((99, 2)), covariance=np.stack([np.eye(2)] * 99))
    >>> calibration = SplitConformal.fit(normal, normal.rescale(3.0).sample(seed=0), level=0.9)
    >>> calibration.region(normal).contains(normal.rescale(3.0).sample(seed=1)).mean().round(2)
    np.float64(0.9)

    """

    squared_radius: float
    level: float

    @classmethod
    def fit(cls, normal: MultivariateNormal, y: Any, level: float = 0.9) -> Self:
        """The radius for predictions of rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, one row for each distribution.
            level: the coverage wanted.

        Raises:
            ValueError: no rows, shapes that don't fit, values that are not finite, or a level that
                is not between 0 and 1.

        Warns:
            UserWarning: too few rows for a bounded region.

        """
        probability(level, "level")
        rows = complete_rows(normal, y, "SplitConformal.fit")
        squared_radius = conformal_quantile(rows.squared_distances, level)
        warn_if_unbounded(squared_radius, len(rows.y), level, "SplitConformal.fit")
        return cls(squared_radius, float(level))

    def region(self, normal: MultivariateNormal) -> Ellipsoid:
        """The regions of these predictions."""
        return Ellipsoid(normal, self.squared_radius)
