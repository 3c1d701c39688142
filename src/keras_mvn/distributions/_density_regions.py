"""Regions of highest density, for distributions that are not elliptical."""

from __future__ import annotations

import math
from typing import Any

from keras_mvn._core.checks import probability
from keras_mvn._core.targets import observed_targets
from keras_mvn._core.types import Array
from keras_mvn.distributions._highest_density import (
    HighestDensityRegion,
    level_of,
    log_densities,
)
from keras_mvn.distributions.base import Distribution

__all__ = ["DensityRegions"]


class DensityRegions(Distribution):
    """Regions of all y whose density is above a limit, which is estimated by draws."""

    def region(
        self, level: float = 0.9, *, samples: int | None = None, seed: Any = 0
    ) -> HighestDensityRegion:
        """The smallest region that contains all targets at once with probability `level`.

        All y whose density is above a limit, which is estimated by draws; it may have several
        pieces. The probability is accurate to about √(level (1 − level) / samples).

        Args:
            level: probability, between 0 and 1.
            samples: number of draws per distribution; None for 1000, and fewer for more than 1000
                distributions, at least 200.
            seed: seed of the draws.

        Raises:
            ValueError: level is not between 0 and 1.

        """
        drawn = log_densities(self, self._draws(samples), seed)
        return HighestDensityRegion(self, probability(level, "level"), drawn)

    def _draws(self, samples: int | None) -> int:
        """Return the number of draws; of a large batch, fewer of each distribution will do."""
        rows = max(math.prod(self.batch_shape), 1)
        return max(200, min(1000, 1_000_000 // rows)) if samples is None else samples

    def region_level(
        self, y: Any, missing: str = "raise", *, samples: int | None = None, seed: Any = 0
    ) -> Array:
        """The probability of the smallest `region` that contains y, estimated by draws: (...).

        It is uniform on (0, 1) if the distributions are right. The level of a row without any
        observed value is 0.

        Args:
            y: as in `log_prob`.
            missing: as in `log_prob`.
            samples: as in `region`.
            seed: seed of the draws.

        """
        observed = observed_targets(y, missing, self.target_names)
        return level_of(self, *observed, self._draws(samples), seed)

    def nonconformity(
        self, y: Any, missing: str = "raise", *, samples: int = 1000, seed: Any = 0
    ) -> Array:
        """The `region_level` of y, and beyond 1 how much less likely y is than any draw: (...).

        Args:
            y: as in `log_prob`.
            missing: as in `log_prob`; of what was observed, then.
            samples: number of draws per distribution.
            seed: seed of the draws.

        """
        observed = observed_targets(y, missing, self.target_names)
        return level_of(self, *observed, samples, seed, beyond=True)

    def region_up_to(
        self, nonconformity: float, *, samples: int = 1000, seed: Any = 0
    ) -> HighestDensityRegion:
        """The regions of highest density that end at this `nonconformity`."""
        return HighestDensityRegion(self, nonconformity, log_densities(self, samples, seed))
