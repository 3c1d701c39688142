"""The law of Student's t: 1/V is a gamma variable with shape and rate ν/2.

log Γ, ψ and their differences are taken by Stirling's series, from which the part that cancels is
removed first: with ν = 10⁹, the density keeps its digits, and for ν = ∞ everything is the normal's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions._normal_law import NORMAL
from keras_mvn.distributions._radial_law import BOUND, NODES, RadialLaw

__all__ = ["StudentLaw"]

_DEPTH = 30.0
"""Logarithm of the ratio of the largest weight to the smallest one that is kept."""

_LEFT = 0.05
"""Share of the exponential in the substitution that shortens the long tail of log V."""

_SHIFT = 12
"""Arguments of Stirling's series are shifted up by this number."""

_NEARLY_NORMAL = 1e15
"""ν from which on float64 can't tell a Student's t from a normal."""


@final
class StudentLaw(RadialLaw):
    """Student's t with ν degrees of freedom, (...): positive, ∞ for normal distributions."""

    def __init__(self, degrees_of_freedom: Array) -> None:
        self._degrees_of_freedom = np.asarray(degrees_of_freedom, dtype=np.float64)

    @property
    def degrees_of_freedom(self) -> Array:
        return self._degrees_of_freedom

    # --- batch axes ------------------------------------------------------------------------------

    def take(self, index: Any) -> Self:
        return type(self)(np.asarray(self.degrees_of_freedom[index]))

    def on_batch(self, batch: tuple[int, ...]) -> Self:
        return type(self)(np.broadcast_to(self.degrees_of_freedom, batch))

    def flat(self) -> Self:
        return type(self)(self.degrees_of_freedom.reshape(-1))

    def joined(self, others: Sequence[Self]) -> Self:
        return type(self)(
            np.concatenate([self.degrees_of_freedom, *(one.degrees_of_freedom for one in others)])
        )

    # --- moments ---------------------------------------------------------------------------------

    def require_mean(self) -> None:
        self._require(1.0, "mean", "`location` always exists, and so do quantiles")

    def variance_factor(self) -> Array:
        self._require(2.0, "covariance", "`scale_matrix` always exists, and so do intervals")
        nu = self.degrees_of_freedom
        with np.errstate(invalid="ignore"):
            return np.where(np.isinf(nu), 1.0, nu / (nu - 2.0))

    def power_factor(self, power: float) -> Array:
        """E V^(p/2) = (ν/2)^(p/2) Γ(½(ν − p))/Γ(½ν)."""
        self._require(power, "mean of distances", "scores by quantiles always exist")
        nu, half = self._finite(self.degrees_of_freedom), 0.5 * power
        log_factor = half * np.log(0.5 * nu) - _log_gamma_ratio(0.5 * (nu - power), half)
        return np.where(np.isinf(self.degrees_of_freedom), 1.0, np.exp(log_factor))

    def log_laplace(self, determinant: Array, distance: Array, power: float) -> Array:
        """−A − ½(ν − p) log(1 + 2B/ν)."""
        nu = self._finite(self.degrees_of_freedom)[..., None]
        found = 0.5 * (nu - power) * np.log1p(2.0 * distance / nu)
        many = np.isinf(self.degrees_of_freedom)[..., None]
        return np.asarray(-determinant - np.where(many, distance, found))

    def spread_factor(self) -> Array:
        """E √(V + V′) = √(ν/2) Γ(ν − ½)/Γ(ν) · B(½(ν − 1), ½(ν − 1))/B(½ν, ½ν).

        1/V and 1/V′ are G B and G (1 − B), with independent G ~ Gamma(ν, ν/2), B ~ Beta(ν/2, ν/2),
        so that V + V′ = 1/(G B (1 − B)).
        """
        self._require(1.0, "mean", "the distance of two draws has none, either")
        nu = np.minimum(self.degrees_of_freedom, _NEARLY_NORMAL)
        gamma = -_log_gamma_ratio(nu - 0.5, 0.5)
        halves = -2.0 * _log_gamma_ratio(0.5 * (nu - 1.0), 0.5)
        whole = -_log_gamma_ratio(nu - 1.0, 1.0)
        return np.exp(0.5 * np.log(0.5 * nu) + gamma + halves - whole)

    def nodes(self, power: float = 1.0, count: int = NODES) -> tuple[Array, Array]:
        """Trapezoidal rule in t, log V = −σ (t − c e^(−t)), σ² = 1/(½ν + ¼).

        The weights fall off exponentially for small V and, by the substitution, also for large V,
        so that the rule converges faster than any power of the number of nodes.

        Source: Trefethen & Weideman, "The exponentially convergent trapezoidal rule", SIAM Review
        56 (2014).
        """
        self._require(power, f"mean of the power {power:g}", "quantiles exist for every ν")
        a = 0.5 * np.minimum(self.degrees_of_freedom, _NEARLY_NORMAL)[..., None]
        sigma = 1.0 / np.sqrt(a + 0.25)
        right = _last_below(lambda s: a * (np.expm1(s) - s), 0.0 * a, 8.0 + 16.0 * sigma)
        left = _last_below(
            lambda s: a * (np.expm1(-s) + s) - 0.5 * power * s,
            0.0 * a,
            16.0 * sigma + 8.0 * _DEPTH / (a - 0.5 * power),
        )
        first = -_last_below(
            lambda t: _DEPTH * sigma * (t + _LEFT * np.exp(t)) / left, 0.0 * a, left / sigma
        )
        last = right / sigma
        t = first + (last - first) * np.linspace(0.0, 1.0, count)
        s = sigma * (t - _LEFT * np.exp(-t))
        weights = np.exp(a * (s - np.expm1(s))) * (1.0 + _LEFT * np.exp(-t))
        return np.exp(-s), weights / weights.sum(axis=-1, keepdims=True)

    # --- density and probabilities ---------------------------------------------------------------

    def log_density(self, squared: Array, count: Any) -> Array:
        nu, a, h = *self._halves(), 0.5 * np.asarray(count, dtype=np.float64)
        found = _log_gamma_ratio(a, h) - h * np.log(math.pi * nu) - (a + h) * np.log1p(squared / nu)
        # For large ν, the first two terms cancel; the series has done that already.
        large = _log_normalizer(a, h) - (a + h) * np.log1p(squared / nu)
        return self._or_normal(
            np.where(a > _SHIFT, large, found), lambda: NORMAL.log_density(squared, count)
        )

    def pull(self, squared: Array, count: Any) -> Array:
        nu = self.degrees_of_freedom
        with np.errstate(invalid="ignore"):
            return np.where(np.isinf(nu), 1.0, (nu + count) / (nu + squared))

    def bounded_pull(self, squared: Array, count: Any) -> Array:
        special = require("scipy.special", "a robust recalibration")
        nu, dof = self.degrees_of_freedom, np.maximum(np.asarray(count, np.float64), 1.0)
        finite = self._finite(nu)
        # pull(q) q = (ν + m) u, u = q/(ν + q) ~ Beta(m/2, ν/2)
        bound = special.betaincinv(0.5 * dof, 0.5 * finite, BOUND)
        inside = special.betainc(0.5 * dof + 1.0, 0.5 * finite, bound)
        consistent = inside + (finite + dof) * bound * (1.0 - BOUND) / dof
        share = squared / (finite + squared)
        found = self.pull(squared, dof) * bound / np.maximum(share, bound) / consistent
        return np.where(np.isinf(nu), NORMAL.bounded_pull(squared, dof), found)

    def entropy(self, count: int) -> Array:
        _, a = self._halves()
        h = 0.5 * count
        slope = (a + h) * _digamma_difference(a, h)
        return self._or_normal(slope - self.log_density(np.zeros(()), count), lambda: _entropy(h))

    def margin_cdf(self, x: Array) -> Array:
        special = require("scipy.special", "marginal_cdf")
        nu = self.degrees_of_freedom[..., None]
        return np.where(np.isinf(nu), special.ndtr(x), special.stdtr(self._finite(nu), x))

    def margin_quantile(self, p: Array) -> Array:
        special = require("scipy.special", "quantile")
        nu = self.degrees_of_freedom[..., None]
        return np.where(np.isinf(nu), special.ndtri(p), special.stdtrit(self._finite(nu), p))

    def margin_reach(self, outside: float) -> Array:
        return -self.margin_quantile(np.full(1, 0.5 * outside))[..., 0]

    def squared_radius(self, level: float, count: int) -> Array:
        special = require("scipy.special", "region")
        nu = self.degrees_of_freedom
        found = count * special.fdtri(count, self._finite(nu), level)
        return np.where(np.isinf(nu), NORMAL.squared_radius(level, count), found)

    def level(self, squared: Array, count: Any) -> Array:
        nu, dof = self.degrees_of_freedom, np.asarray(count, dtype=np.float64)
        betainc = require("scipy.special", "the level of a region").betainc
        finite = self._finite(nu)
        with np.errstate(invalid="ignore"):
            inside = betainc(np.maximum(0.5 * dof, 0.5), 0.5 * finite, squared / (squared + finite))
        found = np.where(dof > 0, inside, 0.0)
        return np.where(np.isinf(nu), NORMAL.level(squared, count), found)[()]

    def chi_square(self, squared: Array, count: Any) -> Array:
        special = require("scipy.special", "the level of a region")
        nu, dof = self.degrees_of_freedom, np.asarray(count, dtype=np.float64)
        finite = self._finite(nu)
        with np.errstate(invalid="ignore"):
            outside = special.betainc(0.5 * finite, 0.5 * dof, finite / (finite + squared))
        return np.where(np.isinf(nu) | (dof == 0), squared, special.chdtri(dof, outside))

    def standard_normal(self, x: Array) -> Array:
        special = require("scipy.special", "the level of a value")
        nu = self.degrees_of_freedom[..., None]
        found = -np.sign(x) * special.ndtri(special.stdtr(self._finite(nu), -np.abs(x)))
        return np.where(np.isinf(nu), x, found)

    # --- draws and conditioning ------------------------------------------------------------------

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        nu = np.minimum(self.degrees_of_freedom, _NEARLY_NORMAL)
        gamma = rng.standard_gamma(0.5 * nu, size=(count, *nu.shape)) / (0.5 * nu)
        return 1.0 / np.sqrt(np.maximum(gamma, np.finfo(np.float64).tiny))

    def scale_at(self, p: Array) -> Array:
        gammainccinv = require("scipy.special", "simultaneous intervals").gammainccinv
        different, which = np.unique(
            np.minimum(self.degrees_of_freedom, _NEARLY_NORMAL), return_inverse=True
        )
        gamma = gammainccinv(0.5 * different, p[:, None]) / (0.5 * different)
        return 1.0 / np.sqrt(gamma[:, which.reshape(self.degrees_of_freedom.shape)])

    def given(self, squared: Array, count: int) -> tuple[Self, Array]:
        """1/V given y_a is a gamma variable with ν + d_a in place of ν, and another rate."""
        nu = self.degrees_of_freedom
        with np.errstate(invalid="ignore"):
            factor = np.where(np.isinf(nu), 1.0, np.sqrt((nu + squared) / (nu + count)))
        return type(self)(np.broadcast_to(nu + count, factor.shape)), factor

    def averaged(self, others: Sequence[Self], weights: Array) -> Self:
        """The mean of 1/ν, to which tails are proportional where they are light."""
        nu = [self.degrees_of_freedom, *(one.degrees_of_freedom for one in others)]
        inverse = np.sum([w / one for w, one in zip(weights, nu, strict=True)], axis=0)
        with np.errstate(divide="ignore"):
            return type(self)(1.0 / inverse)

    @property
    def label(self) -> str:
        values = np.unique(self.degrees_of_freedom)
        if not values.size:
            return ""
        low, high = f"{values[0]:.4g}", f"{values[-1]:.4g}"
        return f", degrees_of_freedom={low if low == high else f'{low}…{high}'}"

    # --- helpers ---------------------------------------------------------------------------------

    def _halves(self) -> tuple[Array, Array]:
        """Return ν and ½ν, with a finite number in place of ∞."""
        nu = self._finite(self.degrees_of_freedom)
        return nu, 0.5 * nu

    def _finite(self, nu: Array) -> Array:
        return np.where(np.isinf(nu), 1.0, nu)

    def _or_normal(self, found: Array, normal: Any) -> Array:
        infinite = np.isinf(self.degrees_of_freedom)
        return np.where(infinite, normal(), found) if infinite.any() else np.asarray(found)

    def _require(self, above: float, what: str, instead: str) -> None:
        smallest = self.degrees_of_freedom.min(initial=np.inf)
        if smallest <= above:
            raise ValueError(
                f"A Student's t with {smallest:.4g} degrees of freedom has no {what}, which takes "
                f"more than {above:g}; {instead}."
            )


def _entropy(half: float) -> Array:
    return NORMAL.entropy(round(2 * half))


def _last_below(function: Any, low: Array, high: Array) -> Array:
    """Return where a function that grows to the right reaches `_DEPTH`, by bisection."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = function(middle) < _DEPTH
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high


def _log_gamma_ratio(x: Array, h: Any) -> Array:
    """Return log Γ(x + h) − log Γ(x) for x > 0, h ≥ 0."""
    below = sum(np.log1p(h / (x + k)) for k in range(_SHIFT))
    y = x + _SHIFT
    leading = (y - 0.5) * np.log1p(h / y) + h * (np.log(y + h) - 1.0)
    return leading + _stirling(y + h) - _stirling(y) - below


def _log_normalizer(x: Array, h: Any) -> Array:
    """Return log Γ(x + h) − log Γ(x) − h log(2π x), without cancellation for large x."""
    log_ratio = (x + h - 0.5) * np.log1p(h / x) - h + _stirling(x + h) - _stirling(x)
    return log_ratio - h * math.log(2.0 * math.pi)


def _stirling(y: Array) -> Array:
    """Return log Γ(y) − (y − ½) log y + y − ½ log 2π (Abramowitz & Stegun, 6.1.41)."""
    inverse = 1.0 / y
    square = inverse * inverse
    tail = 1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0)
    return inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * tail))


def _digamma_difference(x: Array, h: float) -> Array:
    """Return ψ(x + h) − ψ(x) (Abramowitz & Stegun, 6.3.18)."""
    above = sum(h / ((x + k) * (x + h + k)) for k in range(_SHIFT))
    y = x + _SHIFT
    return np.log1p(h / y) + _digamma_tail(y + h) - _digamma_tail(y) + above


def _digamma_tail(y: Array) -> Array:
    square = 1.0 / y**2
    tail = 1.0 / 120.0 - square * (1.0 / 252.0 - square * (1.0 / 240.0 - square / 132.0))
    return -0.5 / y - square * (1.0 / 12.0 - square * tail)
