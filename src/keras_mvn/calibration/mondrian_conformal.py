"""Joint regions with guaranteed coverage in each of several groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import group_labels, probability
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration.base import Calibration, register
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["MondrianConformal"]


@final
@register
@dataclass(frozen=True)
class MondrianConformal(Calibration):
    """Like `SplitConformal` with one radius per group, so that coverage holds in every group.

    Groups are anything known before y: a site, a season, a bin of a feature. Each group needs its
    own calibration rows, at least 9 for a bounded region at level 0.9 (and its coverage varies by
    about √(level (1 − level)/n) from one calibration set to the next).

    Args:
        groups: names of the groups.
        squared_radii: squared Mahalanobis radius for each group, infinite if a group had too few
            rows.
        level: float, coverage for which the radii were fitted.

    Source: Vovk, Gammerman & Shafer, "Algorithmic learning in a random world", 2005, section 4.5.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal(np.zeros((40, 1)), covariance=np.ones((40, 1, 1)))
    >>> y = np.append(np.linspace(-1, 1, 20), np.linspace(-5, 5, 20))[:, None]
    >>> groups = np.repeat(["calm", "storm"], 20)
    >>> calibration = MondrianConformal.fit(normal, y, groups, level=0.9)
    >>> calibration.region(normal[:2], ["calm", "storm"]).radii.round(2).tolist()
    [[1.0], [5.0]]

    """

    groups: tuple[Any, ...]
    squared_radii: tuple[float, ...]
    level: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "squared_radii", tuple(self.squared_radii))

    @classmethod
    def fit(cls, normal: Distribution, y: Any, groups: Any, level: float = 0.9) -> Self:
        """Fit the radii to predictions for rows that were not used for training.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), observed values, one row per distribution.
            groups: (...), group of each row: names or numbers.
            level: float between 0 and 1, target coverage in each group.

        Raises:
            ValueError: there are no rows, shapes do not match, values are not finite, or level is
                not between 0 and 1.

        Warns:
            UserWarning: a group has too few rows for a bounded region.

        """
        probability(level, "level")
        labels = group_labels(groups, normal.batch_shape)
        scores = complete_rows(normal, y, "MondrianConformal.fit").squared_distances
        names, member = np.unique(labels.reshape(-1), return_inverse=True)
        radii = []
        for index, name in enumerate(names.tolist()):
            own = scores[member == index]
            radii.append(conformal_quantile(own, level))
            warn_if_unbounded(radii[-1], len(own), level, f"MondrianConformal.fit, group {name!r}")
        return cls(tuple(names.tolist()), tuple(radii), float(level))

    def region(self, normal: Distribution, groups: Any) -> Ellipsoid:
        """Return the regions for these predictions.

        Args:
            normal: `MultivariateNormal`, predictions.
            groups: (...), group of each row, among those of the calibration rows.

        Raises:
            ValueError: a group is unknown, so nothing is guaranteed for it, or there is not one
                group per row.

        """
        labels = group_labels(groups, normal.batch_shape)
        known = dict(zip(self.groups, self.squared_radii, strict=True))
        unknown = sorted({str(g) for g in labels.reshape(-1).tolist() if g not in known})
        if unknown:
            raise ValueError(
                f"groups {unknown} had no calibration rows; known groups: {list(self.groups)}. Use "
                "SplitConformal on all rows for them, or calibrate on rows of these groups."
            )
        radii = np.array([known[g] for g in labels.reshape(-1).tolist()])
        return Ellipsoid(
            normal.require_elliptical("MondrianConformal.region"), radii.reshape(labels.shape)
        )
