"""The law of normal distributions: V = 1."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.chi_square import chi_square_quantile
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions._radial_law import BOUND, NODES, RadialLaw

__all__ = ["NORMAL"]

_LOG_2PI = float(np.log(2.0 * np.pi))


@final
class _NormalLaw(RadialLaw):
    """V = 1 for every distribution of the batch."""

    @property
    def degrees_of_freedom(self) -> Array:
        return np.full((), np.inf)

    def take(self, index: Any) -> Self:
        return self

    def on_batch(self, batch: tuple[int, ...]) -> Self:
        return self

    def flat(self) -> Self:
        return self

    def joined(self, others: Sequence[Self]) -> Self:
        return self

    def require_mean(self) -> None:
        """The mean exists."""

    def variance_factor(self) -> Array:
        return np.ones(())

    def spread_factor(self) -> Array:
        return np.full((), np.sqrt(2.0))

    def nodes(self, power: float = 1.0, count: int = NODES) -> tuple[Array, Array]:
        return np.ones(1), np.ones(1)

    def power_factor(self, power: float) -> Array:
        return np.ones(())

    def log_laplace(self, determinant: Array, distance: Array, power: float) -> Array:
        return -determinant - distance

    def log_density(self, squared: Array, count: Any) -> Array:
        return -0.5 * squared - 0.5 * _LOG_2PI * count

    def pull(self, squared: Array, count: Any) -> float:
        return 1.0

    def bounded_pull(self, squared: Array, count: Any) -> Array:
        special = require("scipy.special", "a robust recalibration")
        dof = np.maximum(np.asarray(count, np.float64), 1.0)
        limit = special.chdtri(dof, 1.0 - BOUND)
        inside = special.chdtr(dof + 2.0, limit)
        consistent = inside + limit * (1.0 - BOUND) / dof
        return limit / np.maximum(squared, limit) / consistent

    def entropy(self, count: int) -> Array:
        return np.full((), 0.5 * count * (1.0 + _LOG_2PI))

    def margin_cdf(self, x: Array) -> Array:
        return np.asarray(require("scipy.special", "marginal_cdf").ndtr(x))

    def margin_quantile(self, p: Array) -> Array:
        inverse = NormalDist().inv_cdf
        return np.array([inverse(q) for q in p.reshape(-1).tolist()]).reshape(p.shape)

    def margin_reach(self, outside: float) -> float:
        # From the probability outside, which keeps digits where the one inside has none left.
        return -NormalDist().inv_cdf(0.5 * outside)

    def squared_radius(self, level: float, count: int) -> float:
        return chi_square_quantile(level, count)

    def level(self, squared: Array, count: Any) -> Array:
        gammainc = require("scipy.special", "the level of a region").gammainc
        dof = np.asarray(count, dtype=np.float64)
        return np.where(dof > 0, gammainc(np.maximum(0.5 * dof, 0.5), 0.5 * squared), 0.0)[()]

    def chi_square(self, squared: Array, count: Any) -> Array:
        return squared

    def standard_normal(self, x: Array) -> Array:
        return x

    def draw(self, count: int, rng: np.random.Generator) -> float:
        return 1.0

    def scale_at(self, p: Array) -> float:
        return 1.0

    def given(self, squared: Array, count: int) -> tuple[Self, float]:
        return self, 1.0

    def averaged(self, others: Sequence[Self], weights: Array) -> Self:
        return self

    @property
    def label(self) -> str:
        return ""


NORMAL = _NormalLaw()
