"""Calibrated joint regions at every level, from the distances of calibration rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import finite, probability
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration.base import Calibration, register
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["RadialIsotonic"]


@final
@register
@dataclass(frozen=True, eq=False)
class RadialIsotonic(Calibration):
    """A monotone map from the distances that Σ claims to those observed: regions at every level.

    Center and form of the ellipsoids stay; only their radius is learnt, and not with one factor
    for all levels, as by `Temperature`: heavy tails need 50 % regions that are smaller and 99 %
    regions that are larger. With m₁ ≤ … ≤ mₙ the Mahalanobis distances of the calibration rows and
    ρᵢ the i/(n + 1) quantile of the χ distribution, the map ρᵢ → mᵢ of the quantile–quantile plot
    is linear in between, starts at 0, and goes on beyond the last row with the slope mₙ/ρₙ: a
    temperature is a straight line.

    Isotonic regression of the observed on the expected frequencies (Kuleshov et al.) is this map:
    an empirical distribution function is monotone already, so that there is nothing to pool.
    Interpolating distances, not probabilities, keeps far rows apart, whose χ² probability rounds
    to 1. The predicted density is left alone: for one, use a `Recalibration`.

    Args:
        distances: of the calibration rows, (n,), ascending, the largest positive.
        event_size: d.

    Raises:
        ValueError: distances that are not ascending or not positive.
        ImportError: SciPy is not installed.

    Source: Kuleshov, Fenner & Ermon, "Accurate uncertainties for deep learning using calibrated
    regression", ICML 2018, with the joint distance in place of one target.

    >>> import numpy as np
    >>> normal = MultivariateNormal(np.zeros((500, 2)), covariance=np.stack([np.eye(2)] * 500))
    >>> wider = normal.rescale(2.0)
    >>> calibration = RadialIsotonic.fit(normal, wider.sample(seed=0))
    >>> calibration.region(normal, 0.9).contains(wider.sample(seed=1)).mean().round(2)
    np.float64(0.9)

    """

    distances: Array
    event_size: int

    def __post_init__(self) -> None:
        m = np.atleast_1d(finite(self.distances, "distances"))
        if m.ndim != 1 or m.size == 0 or (np.diff(m) < 0).any() or m[0] < 0 or m[-1] == 0:
            raise ValueError("distances must be ascending, at least one of them, the last above 0.")
        m.setflags(write=False)
        object.__setattr__(self, "distances", m)

    @classmethod
    def fit(cls, normal: MultivariateNormal, y: Any, missing: str = "raise") -> Self:
        """The map for predictions of rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, one row for each distribution.
            missing: NaN is an error either way: distances of other dimensions don't compare.

        Raises:
            ValueError: no rows, shapes that don't fit, NaN or infinite values, or predictions that
                all hit exactly.

        """
        rows = complete_rows(normal, y, "RadialIsotonic.fit", missing)
        return cls(np.sqrt(np.sort(rows.squared_distances)), normal.event_size)

    def region(self, normal: MultivariateNormal, level: float = 0.9) -> Ellipsoid:
        """The region that holds all targets at once with probability `level`.

        Raises:
            ValueError: level is not between 0 and 1, or another number of targets.

        """
        self._check(normal)
        special = require("scipy.special", "RadialIsotonic.region")
        claimed = np.sqrt(special.chdtri(self.event_size, 1.0 - probability(level, "level")))
        return Ellipsoid(normal, self._along(claimed, *self._knots()) ** 2)

    def pit(self, normal: MultivariateNormal, y: Any) -> Array:
        """The smallest level whose region holds y, uniform if calibrated: (...).

        Raises:
            ValueError: y does not fit the distributions, or is not finite; another number of
                targets.

        """
        self._check(normal)
        claimed, observed = self._knots()
        distance = self._along(normal.mahalanobis(y), observed, claimed)
        special = require("scipy.special", "RadialIsotonic.pit")
        return np.asarray(special.chdtr(self.event_size, distance**2))

    def _check(self, normal: MultivariateNormal) -> None:
        if normal.event_size != self.event_size:
            raise ValueError(
                f"This calibration is for {self.event_size} targets; the distributions have "
                f"{normal.event_size}."
            )

    def _knots(self) -> tuple[Array, Array]:
        """ρ and m, from the origin on."""
        n = len(self.distances)
        level = np.arange(1, n + 1) / (n + 1)
        special = require("scipy.special", "RadialIsotonic")
        claimed = np.sqrt(special.chdtri(self.event_size, 1.0 - level))
        return np.append(0.0, claimed), np.append(0.0, self.distances)

    @staticmethod
    def _along(x: Any, start: Array, end: Array) -> Array:
        """Piecewise linear from start to end, beyond the last knot through it and the origin."""
        return np.where(x > start[-1], x * (end[-1] / start[-1]), np.interp(x, start, end))
