"""Joint regions for a stream of rows whose distribution drifts."""

from __future__ import annotations

from collections import deque
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import finite, probability, whole
from keras_mvn.calibration._quantile import conformal_quantile
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration.base import register
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["AdaptiveConformal"]


@final
@register
class AdaptiveConformal:
    """Adaptive conformal inference: coverage converges to `level` for any sequence of rows.

    The region of the next row is the conformal quantile of the last `window` squared distances at
    level 1 − α, and every new row changes α by γ (1 − level − missed), missed = 1 if it was
    outside. After T rows the coverage differs from `level` by at most (max(α₁, 1 − α₁) + γ)/(γ T),
    for any sequence, even an adversarial one. For α ≤ 0 the region is unbounded, for α ≥ 1 a
    single point.

    Unlike the other calibrations, this object has state: call `update` after every row. It can be
    saved at any time (`get_config`) and resumed later.

    Args:
        level: float between 0 and 1, target coverage.
        gamma: float > 0, γ, the learning rate of α: 0.005 in the source; a larger one follows a
            drift faster, with radii that vary more.
        window: int, number of past rows to keep; more than 1/(1 − level).
        scores: their squared Mahalanobis distances, oldest first.
        alpha: float, α; None: 1 − level.

    Raises:
        ValueError: level is not between 0 and 1, gamma is not positive, window is too short, or
            scores are not finite.

    Source: Gibbs & Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal(np.zeros((3000, 2)), covariance=np.stack([np.eye(2)] * 3000))
    >>> y = normal.sample(seed=0) * np.linspace(1.0, 4.0, 3000)[:, None]  # a drift
    >>> calibration = AdaptiveConformal.fit(normal[:200], y[:200], level=0.9, gamma=0.02)
    >>> calibration.update(normal[200:], y[200:]).mean().round(2)
    np.float64(0.9)

    """

    def __init__(
        self,
        level: float = 0.9,
        gamma: float = 0.005,
        window: int = 500,
        scores: Any = (),
        alpha: float | None = None,
    ) -> None:
        self.level = probability(level, "level")
        if not isinstance(gamma, int | float) or not 0.0 < gamma < np.inf:
            raise ValueError(f"gamma={gamma!r} must be a positive number.")
        self.gamma = float(gamma)
        shortest = int(1.0 / (1.0 - self.level)) + 1
        self.window = whole(window, "window", "more rows than 1/(1 − level)", shortest)
        self.alpha = 1.0 - self.level if alpha is None else float(alpha)
        known = finite(scores, "scores").reshape(-1)
        self._scores = deque(known.tolist(), maxlen=self.window)

    @classmethod
    def fit(
        cls,
        normal: Distribution,
        y: Any,
        level: float = 0.9,
        gamma: float = 0.005,
        window: int = 500,
    ) -> Self:
        """Start with the squared distances of calibration rows, oldest first.

        Args:
            normal: predictions for rows that were not used for training.
            y: (rows, d), observed values for them.
            level: as for the class.
            gamma: as for the class.
            window: as for the class.

        Raises:
            ValueError: as for the class; or there are no rows, or shapes do not match.

        """
        rows = complete_rows(normal, y, "AdaptiveConformal.fit")
        return cls(level, gamma, window, rows.squared_distances)

    @property
    def squared_radius(self) -> float:
        """Squared Mahalanobis radius of the next row's region."""
        if self.alpha >= 1.0:
            return 0.0
        if self.alpha <= 0.0:
            return np.inf
        return conformal_quantile(np.array(self._scores), 1.0 - self.alpha)

    def region(self, normal: Distribution) -> Ellipsoid:
        """Return the region of the next row, or of several rows needed before any is observed."""
        return Ellipsoid(normal.require_elliptical("AdaptiveConformal.region"), self.squared_radius)

    def update(self, normal: Distribution, y: Any) -> np.ndarray:
        """Update the state with new rows, in order, as if they came one by one.

        Args:
            normal: predictions for them.
            y: (..., d), observed values.

        Returns:
            Whether each was inside its region, (...), boolean.

        Raises:
            ValueError: shapes do not match, or values are not finite.

        """
        if normal.batch_shape == (0,) == np.shape(y)[:1]:
            return np.zeros(0, dtype=bool)
        rows = complete_rows(normal, y, "AdaptiveConformal.update")
        inside = [self._learn(score) for score in rows.squared_distances.tolist()]
        return np.array(inside).reshape(normal.batch_shape)

    def _learn(self, score: float) -> bool:
        inside = score <= self.squared_radius and self.alpha < 1.0
        self.alpha += self.gamma * (1.0 - self.level - (not inside))
        self._scores.append(score)
        return inside

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the current state."""
        return {
            "level": self.level,
            "gamma": self.gamma,
            "window": self.window,
            "scores": list(self._scores),
            "alpha": self.alpha,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return an object in this state."""
        return cls(**config)

    def __repr__(self) -> str:
        return (
            f"AdaptiveConformal(level={self.level}, gamma={self.gamma}, window={self.window}, "
            f"alpha={self.alpha:.4f}, rows={len(self._scores)})"
        )
