"""Joint regions with guaranteed coverage for any distribution of the errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

from keras_mvn._core.checks import probability
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration.base import Calibration, register
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["SplitConformal"]


@final
@register
@dataclass(frozen=True)
class SplitConformal(Calibration):
    """Ellipsoids that contain a new row with probability ≥ level, even if the model is wrong.

    The squared radius is the ⌈(n + 1) level⌉-th smallest squared Mahalanobis distance of n
    calibration rows. If these and the new row are exchangeable (as independent draws from one
    distribution are), level ≤ P(new y inside) ≤ level + 1/(n + 1), the upper bound for distances
    without ties. This holds on average over rows and calibration sets, not for each x. A better Σ
    makes the regions smaller, not safer.

    Args:
        squared_radius: float, squared Mahalanobis radius, infinite if there were too few rows.
        level: float, coverage for which the radius was fitted.

    Source: Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002; for
    ellipsoids, Johnstone & Cox, "Conformal uncertainty sets for robust optimization", COPA 2021.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal(np.zeros((99, 2)), covariance=np.stack([np.eye(2)] * 99))
    >>> calibration = SplitConformal.fit(normal, normal.rescale(3.0).sample(seed=0), level=0.9)
    >>> calibration.region(normal).contains(normal.rescale(3.0).sample(seed=1)).mean().round(2)
    np.float64(0.9)

    """

    squared_radius: float
    level: float

    @classmethod
    def fit(cls, normal: Distribution, y: Any, level: float = 0.9) -> Self:
        """Fit the radius to predictions for rows that were not used for training.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), observed values, one row per distribution.
            level: float between 0 and 1, target coverage.

        Raises:
            ValueError: there are no rows, shapes do not match, values are not finite, or level is
                not between 0 and 1.

        Warns:
            UserWarning: there are too few rows for a bounded region.

        """
        probability(level, "level")
        rows = complete_rows(normal, y, "SplitConformal.fit")
        squared_radius = conformal_quantile(rows.squared_distances, level)
        warn_if_unbounded(squared_radius, len(rows.y), level, "SplitConformal.fit")
        return cls(squared_radius, float(level))

    def region(self, normal: Distribution) -> Ellipsoid:
        """Return the regions for these predictions."""
        return Ellipsoid(normal.require_elliptical("SplitConformal.region"), self.squared_radius)
