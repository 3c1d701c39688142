"""Monotone transforms T that make targets normal, and moments of T⁻¹.

Quantiles can be mapped back by T⁻¹, but means cannot: E T⁻¹(t) ≠ T⁻¹(E t).
"""

from __future__ import annotations

import abc
from typing import Any, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = [
    "BEYOND",
    "FAR",
    "UNSEEN",
    "BoxCox",
    "Log",
    "Rescaled",
    "TargetTransform",
    "YeoJohnson",
    "require_positive",
]

NODES = 32
"""Nodes of the Gauss–Hermite rule, which is exact for polynomials up to degree 63."""

UNSEEN = 1e3
"""Distance from the median, in ranges of the targets, at which an unbounded y is cut off."""

BEYOND = -4.75
"""Standard deviations z from the cut, with Φ(z) = 1e-6, above which there is a warning."""

FAR = 12.0
"""Standard deviations of the targets, beyond which their normals have practically no mass."""

ROWS_AT_ONCE = 1 << 14
"""Rows per chunk in sums over nodes."""


class TargetTransform(abc.ABC):
    """A strictly monotone function of each target, (..., d) → (..., d) in float64."""

    increasing: np.ndarray
    """(d,), boolean: whether the function of each target is increasing."""

    lowest: Any = -np.inf
    """Lower bound of the targets: one number, or (d,)."""

    growth: float = np.inf
    """T⁻¹(t) grows at most like this power of t; infinite for an exponential."""

    @abc.abstractmethod
    def forward(self, y: Array) -> Array:
        """The transformed targets T(y); NaN stays NaN."""

    @abc.abstractmethod
    def inverse(self, t: Array) -> Array:
        """The inverse transform T⁻¹(t)."""

    @abc.abstractmethod
    def log_derivative(self, y: Array) -> Array:
        """The logarithm log |T'(y)| for each target; NaN stays NaN."""

    @abc.abstractmethod
    def of(self, index: np.ndarray) -> TargetTransform:
        """The transform of these targets alone."""

    def of_limits(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The box of t that corresponds to lower ≤ y ≤ upper; limits may be infinite."""
        a = np.where(lower <= self.lowest, -np.inf, lower)
        b = np.where(upper < self.lowest, -np.inf, upper)
        ends = [self._of_limit(a), self._of_limit(b)]
        return np.where(self.increasing, *ends), np.where(self.increasing, *ends[::-1])

    def _of_limit(self, y: Array) -> Array:
        infinite = np.isinf(y)
        with np.errstate(divide="ignore"):
            t = self.forward(np.where(infinite, np.nan, y))
        return np.where(infinite, np.where(self.increasing, y, -y), t)

    def check(self, y: Array, names: list[str]) -> None:
        """Check that values are inside the domain of T.

        Raises:
            ValueError: some are not; the message names the targets.

        """
        return

    def warn_of_ends(self, normal: MultivariateNormal) -> None:
        """Warn if T⁻¹(t) has no mean."""
        return

    def moments(self, normal: MultivariateNormal, dense: bool) -> tuple[Array, Array]:
        """Mean and variance (..., d) of T⁻¹(t); if dense, mean and covariance (..., d, d).

        With T⁻¹(μ + σ z) = Σ_k a_k h_k(z), h_k the normalized Hermite polynomials, the mean is
        a_0, and Mehler's formula gives the covariance: Σ_{k ≥ 1} a_ik a_jk ρ_ij^k.
        """
        self.warn_of_ends(normal)
        batch, d = normal.batch_shape, normal.event_size
        rows = normal if len(batch) == 1 else normal[np.ones(batch, bool)] if batch else None
        if rows is None:
            return self._moments(normal, dense)
        parts = [
            self._moments(rows[start : start + ROWS_AT_ONCE], dense)
            for start in range(0, len(rows), ROWS_AT_ONCE)
        ]
        if not parts:
            return np.zeros((*batch, d)), np.zeros((*batch, d, d) if dense else (*batch, d))
        mean, second = (np.concatenate(column) for column in zip(*parts, strict=True))
        return mean.reshape(*batch, d), second.reshape(*batch, *second.shape[1:])

    def _moments(self, normal: MultivariateNormal, dense: bool) -> tuple[Array, Array]:
        z, weights, hermite = _hermite_rule()
        steps = z.reshape(-1, *(1 for _ in normal.mean.shape))
        values = self.inverse(normal.mean + steps * normal.stddev)
        a = np.tensordot(hermite * weights, values, axes=1)
        if not dense:
            return a[0], (a[1:] ** 2).sum(axis=0)
        correlation = normal.correlation
        covariance = np.zeros_like(correlation)
        for coefficients in a[:0:-1]:  # Horner's rule, the highest power first
            covariance += coefficients[..., :, None] * coefficients[..., None, :]
            covariance *= correlation
        return a[0], covariance


def _hermite_rule() -> tuple[Array, Array, Array]:
    """Return nodes and weights for a standard normal z, and h_k(z) at the nodes: (k, nodes)."""
    z, w = np.polynomial.hermite_e.hermegauss(NODES)
    h = np.ones((NODES, NODES))
    h[1] = z
    for k in range(1, NODES - 1):
        h[k + 1] = (z * h[k] - np.sqrt(k) * h[k - 1]) / np.sqrt(k + 1.0)
    return z, w / w.sum(), h


@final
class Log(TargetTransform):
    """The transform T(y) = log y, y > 0: y is log-normal, with exact moments.

    Mean m = exp(μ + σ²/2), covariance mᵢ mⱼ (exp(Σᵢⱼ) − 1).
    """

    lowest = 0.0

    def __init__(self, event_size: int) -> None:
        self.increasing = np.ones(event_size, dtype=bool)

    def of(self, index: np.ndarray) -> TargetTransform:
        return Log(len(index))

    def forward(self, y: Array) -> Array:
        return np.log(y)

    def inverse(self, t: Array) -> Array:
        return np.exp(t)

    def log_derivative(self, y: Array) -> Array:
        return -np.log(y)

    def check(self, y: Array, names: list[str]) -> None:
        require_positive(y, names, "log")

    def _moments(self, normal: MultivariateNormal, dense: bool) -> tuple[Array, Array]:
        mean = np.exp(normal.mean + 0.5 * normal.variance)
        if not dense:
            return mean, mean**2 * np.expm1(normal.variance)
        return mean, mean[..., :, None] * mean[..., None, :] * np.expm1(normal.covariance)


@final
class BoxCox(TargetTransform):
    """The Box–Cox transform T(y) = ((y/s)^λ − 1)/λ for y > 0, or log(y/s) for λ = 0.

    s is the geometric mean of the targets. λ is kept at 0 or above, where every moment of y exists.
    For λ > 0, the normal has some mass below T(0) = −1/λ, which is mapped to y = 0.

    Source: Box & Cox, "An analysis of transformations", JRSS B 26 (1964).
    """

    lowest = 0.0

    def __init__(self, power: Array, unit: Array) -> None:
        self.power, self.unit = power, unit
        self.increasing = np.ones(len(power), dtype=bool)
        self.growth = _growth(power)

    def of(self, index: np.ndarray) -> TargetTransform:
        return BoxCox(self.power[index], self.unit[index])

    def forward(self, y: Array) -> Array:
        return _power(np.log(y / self.unit), self.power)

    def inverse(self, t: Array) -> Array:
        return self.unit * np.exp(_power_inverse(t, self.power))

    def log_derivative(self, y: Array) -> Array:
        slope = self.power - 1.0
        with np.errstate(divide="ignore", invalid="ignore"):  # y = 0, and 0 · ∞
            grown = np.where(slope == 0.0, 0.0 * y, slope * np.log(y / self.unit))
        return grown - np.log(self.unit)

    def check(self, y: Array, names: list[str]) -> None:
        require_positive(y, names, "box-cox")


@final
class YeoJohnson(TargetTransform):
    """The Yeo–Johnson transform: Box–Cox of 1 + |y/s|, with λ for y above 0 and 2 − λ below.

    s is the standard deviation of the target. λ is kept in [0, 2], where T maps all of ℝ to all of
    ℝ.

    Source: Yeo & Johnson, "A new family of power transformations to improve normality or
    symmetry", Biometrika 87 (2000).
    """

    def __init__(self, power: Array, unit: Array) -> None:
        self.power, self.unit = power, unit
        self.increasing = np.ones(len(power), dtype=bool)
        self.growth = _growth(np.minimum(power, 2.0 - power))

    def of(self, index: np.ndarray) -> TargetTransform:
        return YeoJohnson(self.power[index], self.unit[index])

    def forward(self, y: Array) -> Array:
        return np.sign(y) * _power(np.log1p(np.abs(y) / self.unit), self._power_at(y))

    def inverse(self, t: Array) -> Array:
        return np.sign(t) * self.unit * np.expm1(_power_inverse(np.abs(t), self._power_at(t)))

    def log_derivative(self, y: Array) -> Array:
        grown = np.log1p(np.abs(y) / self.unit)
        return (self._power_at(y) - 1.0) * grown - np.log(self.unit)

    def _power_at(self, values: Array) -> Array:
        return np.where(values < 0, 2.0 - self.power, self.power)


@final
class Rescaled(TargetTransform):
    """The transform of c y + b: T((y − b)/c).

    Args:
        transform: T.
        factors: c, (d,), not 0.
        offset: b, (d,).

    """

    def __init__(self, transform: TargetTransform, factors: Array, offset: Array) -> None:
        self.transform, self.factors, self.offset = transform, factors, offset
        self.increasing = transform.increasing == (factors > 0)
        self.growth = transform.growth
        lowest = factors * transform.lowest + offset
        self.lowest = np.where(factors > 0, lowest, -np.inf)

    def of(self, index: np.ndarray) -> TargetTransform:
        return Rescaled(self.transform.of(index), self.factors[index], self.offset[index])

    def forward(self, y: Array) -> Array:
        return self.transform.forward(self._before(y))

    def inverse(self, t: Array) -> Array:
        return self.factors * self.transform.inverse(t) + self.offset

    def log_derivative(self, y: Array) -> Array:
        return self.transform.log_derivative(self._before(y)) - np.log(np.abs(self.factors))

    def check(self, y: Array, names: list[str]) -> None:
        self.transform.check(self._before(y), names)

    def warn_of_ends(self, normal: MultivariateNormal) -> None:
        self.transform.warn_of_ends(normal)

    def _before(self, y: Array) -> Array:
        return (y - self.offset) / self.factors


def _growth(power: Array) -> float:
    """The power of t with which y grows, if T(y) grows like y^λ."""
    smallest = float(np.min(power, initial=1.0))
    return 1.0 / smallest if smallest > 0 else np.inf


def _power(log_y: Array, power: Array) -> Array:
    """Return (y^λ − 1)/λ, accurate also for λ close to 0."""
    safe = np.where(power == 0, 1.0, power)
    return np.where(power == 0, log_y, np.expm1(safe * log_y) / safe)


def _power_inverse(t: Array, power: Array) -> Array:
    """Return log y, the inverse of `_power`; −∞ for t ≤ −1/λ."""
    safe = np.where(power == 0, 1.0, power)
    with np.errstate(divide="ignore"):
        log_y = np.log1p(np.maximum(safe * t, -1.0)) / safe
    return np.where(power == 0, t, log_y)


def require_positive(y: Array, names: list[str], what: str) -> None:
    bad = (y <= 0).any(axis=tuple(range(y.ndim - 1)))
    if bad.any():
        raise ValueError(
            f"target_transform={what!r} takes positive targets, but "
            f"{[names[j] for j in np.flatnonzero(bad)]} have values that are 0 or negative. Use "
            "'yeo-johnson', or shift these targets."
        )
