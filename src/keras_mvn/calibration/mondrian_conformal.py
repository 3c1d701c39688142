"""Joint regions with a guaranteed coverage in each of several groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import group_labels, probability
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration.base import Calibration, register
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["MondrianConformal"]


@final
@register
@dataclass(frozen=True)
class MondrianConformal(Calibration):
    """`SplitConformal` with a radius for each group: the coverage holds in every one of them.

    Groups are anything known before y is: a site, a season, a bin of a feature. Each needs
    calibration rows of its own, 9 at least for a bounded region of level 0.9 (and its coverage
    varies with them: by about √(level (1 − level)/n) from one calibration set to the next).

    Args:
        groups: their names.
        squared_radii: one for each, infinite where a group had too few rows.
        level: the coverage that they are for.

    Source: Vovk, Gammerman & Shafer, "Algorithmic learning in a random world", 2005, section 4.5.

    >>> import numpy as np
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
    def fit(cls, normal: MultivariateNormal, y: Any, groups: Any, level: float = 0.9) -> Self:
        """The radii for predictions of rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, one row for each distribution.
            groups: (...), the group of each row: names or numbers.
            level: the coverage wanted in each group.

        Raises:
            ValueError: no rows, shapes that don't fit, values that are not finite, or a level that
                is not between 0 and 1.

        Warns:
            UserWarning: a group with too few rows for a bounded region.

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

    def region(self, normal: MultivariateNormal, groups: Any) -> Ellipsoid:
        """The regions of these predictions.

        Args:
            normal: predictions.
            groups: (...), the group of each; one that the calibration rows had.

        Raises:
            ValueError: an unknown group, for which nothing is guaranteed; or not one per row.

        """
        labels = group_labels(groups, normal.batch_shape)
        known = dict(zip(self.groups, self.squared_radii, strict=True))
        unknown = sorted({str(g) for g in labels.reshape(-1).tolist() if g not in known})
        if unknown:
            raise ValueError(
                f"groups {unknown} had no calibration rows; known are {list(self.groups)}. Use a "
                "SplitConformal of all rows for them, or calibrate on rows of these groups."
            )
        radii = np.array([known[g] for g in labels.reshape(-1).tolist()])
        return Ellipsoid(normal, radii.reshape(labels.shape))
