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
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["RadialIsotonic"]


@final
@register
@dataclass(frozen=True, eq=False)
class RadialIsotonic(Calibration):
    """A monotone map from nominal to observed Mahalanobis distances: regions at every level.

    Center and shape of the ellipsoids do not change; only their radius is learned. Unlike with
    `Temperature`, the factor depends on the level: heavy tails need smaller 50 % regions and larger
    99 % regions. With m₁ ≤ … ≤ mₙ the Mahalanobis distances of the calibration rows and ρᵢ the
    i/(n + 1) quantile of the χ distribution, the map ρᵢ → mᵢ of the quantile–quantile plot is
    interpolated linearly, starts at 0, and is extended beyond the last row with slope mₙ/ρₙ. A
    temperature corresponds to a straight line.

    This map equals isotonic regression of the observed on the expected frequencies (Kuleshov et
    al.): an empirical distribution function is already monotone, so there is nothing to pool.
    Interpolating distances instead of probabilities distinguishes far rows, whose χ² probabilities
    round to 1. The predicted density does not change: to correct it, use a `Recalibration`.

    Args:
        distances: (n,), Mahalanobis distances of the calibration rows, ascending; the largest is
            positive.
        event_size: int d, number of targets.

    Raises:
        ValueError: distances are not ascending, or the largest is not positive.
        ImportError: SciPy is not installed.

    Source: Kuleshov, Fenner & Ermon, "Accurate uncertainties for deep learning using calibrated
    regression", ICML 2018, with the joint distance in place of one target.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
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
            raise ValueError(
                "distances must be non-negative, ascending and not empty, with the last above 0."
            )
        m.setflags(write=False)
        object.__setattr__(self, "distances", m)

    @classmethod
    def fit(cls, normal: Distribution, y: Any, missing: str = "raise") -> Self:
        """Fit the map to predictions for rows that were not used for training.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), observed values, one row per distribution.
            missing: NaN is an error for either value, because distances of different dimensions
                are not comparable.

        Raises:
            ValueError: there are no rows, shapes do not match, values are NaN or infinite, or all
                predictions are exact.

        """
        rows = complete_rows(normal, y, "RadialIsotonic.fit", missing)
        return cls(np.sqrt(np.sort(rows.squared_distances)), normal.event_size)

    def region(self, normal: Distribution, level: float = 0.9) -> Ellipsoid:
        """Return the region that contains all targets jointly with probability `level`.

        Raises:
            ValueError: level is not between 0 and 1, or the number of targets differs.

        """
        self._check(normal)
        special = require("scipy.special", "RadialIsotonic.region")
        claimed = np.sqrt(special.chdtri(self.event_size, 1.0 - probability(level, "level")))
        return Ellipsoid(
            normal.require_elliptical("RadialIsotonic.region"),
            self._along(claimed, *self._knots()) ** 2,
        )

    def pit(self, normal: Distribution, y: Any) -> Array:
        """Return the smallest level whose region contains y, uniform if calibrated: (...).

        Raises:
            ValueError: y does not match the distributions or is not finite, or the number of
                targets differs.

        """
        self._check(normal)
        claimed, observed = self._knots()
        distance = self._along(
            normal.require_elliptical("RadialIsotonic.pit").mahalanobis(y), observed, claimed
        )
        special = require("scipy.special", "RadialIsotonic.pit")
        return np.asarray(special.chdtr(self.event_size, distance**2))

    def _check(self, normal: Distribution) -> None:
        if normal.event_size != self.event_size:
            raise ValueError(
                f"This calibration is for {self.event_size} targets; the distributions have "
                f"{normal.event_size}."
            )

    def _knots(self) -> tuple[Array, Array]:
        """Return ρ and m, each starting at 0."""
        n = len(self.distances)
        level = np.arange(1, n + 1) / (n + 1)
        special = require("scipy.special", "RadialIsotonic")
        claimed = np.sqrt(special.chdtri(self.event_size, 1.0 - level))
        return np.append(0.0, claimed), np.append(0.0, self.distances)

    @staticmethod
    def _along(x: Any, start: Array, end: Array) -> Array:
        """Map x piecewise linearly; beyond the last knot, along the line from the origin to it."""
        return np.where(x > start[-1], x * (end[-1] / start[-1]), np.interp(x, start, end))
