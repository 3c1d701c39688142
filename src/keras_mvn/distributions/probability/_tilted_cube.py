"""P(lower ≤ Y ≤ upper) for any R: target by target, each given those before it.

With R = L Lᵀ and Y = L z, z₁ has limits, z₂ has limits that depend on z₁, and so on. If they are
drawn within these limits one after another, the product of the shares Φ(high) − Φ(low) is an
unbiased estimate (Genz). If limits oppose the correlations of the targets, that product varies by
orders of magnitude. Therefore, z_k is drawn around a tilt μ_k instead of 0, and weighted: the tilt
is the one that minimizes the largest product, a saddle point found by Newton's method (Botev). The
targets are sorted so that the most restrictive one, given those before it, comes first (Gibson,
Glasbey & Elston).

Source: Genz, "Numerical computation of multivariate normal probabilities", Journal of Computational
and Graphical Statistics 1 (1992); Botev, "The normal law under linear restrictions: simulation and
estimation via minimax tilting", Journal of the Royal Statistical Society B 79 (2017); Gibson,
Glasbey & Elston, "Monte Carlo evaluation of multivariate normal integrals and sensitivity to
variate ordering", Advances in Numerical Methods and Applications (1994).
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions.probability._mode import mode_over_factors
from keras_mvn.distributions.probability._newton import damped_newton
from keras_mvn.distributions.probability._quasi_monte_carlo import integrate, parts
from keras_mvn.distributions.probability._truncated_normal import (
    log_between,
    quantile_between,
    shrinkage_between,
)

__all__ = ["over_cube"]

_STEPS, _HALVINGS = 40, 12
"""Maximum number of steps to the tilt, and of halvings of a step."""

_LEAST = 1e-100
"""Smallest standard deviation of a target given the others, if its own is 1."""


def over_cube(a: Array, b: Array, factor: Array, samples: int, seed: int) -> tuple[Array, Array]:
    """Estimate probabilities for targets of variance 1, limits (rows, d), factors (rows, d, d)."""
    d = a.shape[-1]
    chain = _sorted(a, b, factor)
    tilt = np.zeros_like(a)
    for part in parts(len(a), 16 * d * d):
        tilt[part] = chain.rows(part).tilt()

    def of(part: slice, points: Array) -> Array:
        low, high, given = chain.rows(part)
        mu = tilt[part]
        z = np.zeros((len(mu), len(points), d))
        log_value = np.zeros(z.shape[:2])
        for j in range(d):
            shift = (z[..., :j] @ given[:, j, :j, None])[..., 0] + mu[:, j, None]
            u = points[:, min(j, d - 2)]
            log_share, drawn = quantile_between(
                low[:, j, None] - shift, high[:, j, None] - shift, u
            )
            log_value += log_share
            if j < d - 1:
                log_value -= mu[:, j, None] * (0.5 * mu[:, j, None] + drawn)
                z[..., j] = drawn + mu[:, j, None]
        return np.exp(log_value)

    return integrate(of, len(a), max(d - 1, 1), d + 4, samples, seed)


@final
class _Chain(NamedTuple):
    """Limits low ≤ z + given z ≤ high, `given` strictly lower: those of z_k depend on z_j, j < k.

    The shapes are (rows, d), (rows, d) and (rows, d, d).
    """

    low: Array
    high: Array
    given: Array

    def rows(self, part: slice) -> _Chain:
        """Select some of the rows."""
        return _Chain(*(array[part] for array in self))

    def tilt(self) -> Array:
        """Return the tilt μ (rows, d), the last 0: the saddle point of ψ(z, μ), by Newton's method.

        The start is the mode of z, with the matching μ; slopes are compared in units of the spread
        of z there.
        """
        rows, d = self.low.shape
        z, precision = mode_over_factors(self.low, self.high, self.given[..., : d - 1])
        unit = 1.0 / np.sqrt(np.diagonal(precision, axis1=-2, axis2=-1))
        weight = np.concatenate([unit, 1.0 / unit], axis=-1)
        point = np.concatenate([z, np.zeros_like(z)], axis=-1)
        point[:, d - 1 :] = self._slope(point)[0][:, : d - 1]

        def at(point: Array) -> tuple[Array, Array, Array]:
            slope, jacobian = self._slope(point)
            return -((weight * slope) ** 2).sum(axis=-1), slope, -jacobian

        point, _ = damped_newton(at, point, weight, _STEPS, _HALVINGS)
        mu = np.concatenate([point[:, d - 1 :], np.zeros((rows, 1))], axis=-1)
        return np.where(np.isfinite(mu).all(axis=-1, keepdims=True), mu, 0.0)

    def _slope(self, point: Array) -> tuple[Array, Array]:
        """Return ∂ψ/∂(z, μ) without the last of each, (rows, 2d − 2), and its Jacobian.

        ψ = Σ_k [½ μ_k² − μ_k z_k + log (Φ(high_k − s_k) − Φ(low_k − s_k))] with s = given z + μ.
        """
        rows, d = self.low.shape
        m = d - 1
        z, mu = point[:, :m], point[:, m:]
        shift = (self.given[..., :m] @ z[..., None])[..., 0]
        shift[:, :m] += mu
        low, high = self.low - shift, self.high - shift
        _, at_low, at_high = log_between(low, high)
        mean = at_low - at_high
        given = self.given[..., :m]
        slope = np.concatenate(
            [(np.swapaxes(given, -1, -2) @ mean[..., None])[..., 0] - mu, mu - z + mean[:, :m]],
            axis=-1,
        )
        bend = -shrinkage_between(low, high, at_low, at_high)
        bent = bend[..., None] * given
        jacobian = np.zeros((rows, 2 * m, 2 * m))
        jacobian[:, :m, :m] = np.swapaxes(given, -1, -2) @ bent
        jacobian[:, m:, :m] = bent[:, :m] - np.eye(m)
        jacobian[:, :m, m:] = np.swapaxes(jacobian[:, m:, :m], -1, -2)
        jacobian[:, m:, m:] = np.eye(m) * (1.0 + bend[:, :m, None])
        return slope, jacobian


def _sorted(a: Array, b: Array, factor: Array) -> _Chain:
    """Sort the targets: next is the least probable one, given the means of those before it.

    Uses Gram–Schmidt orthogonalization of the factor's rows: the remainder of a row is what those
    before it leave undetermined, accurate even where that is little.
    """
    rows, d = a.shape
    every = np.arange(rows)
    low, high, left = a.copy(), b.copy(), factor.copy()
    lower, z = np.zeros((rows, d, d)), np.zeros((rows, d))
    for j in range(d):
        width = np.maximum(np.linalg.norm(left[:, j:], axis=-1), _LEAST)
        known = (lower[:, j:, :j] @ z[:, :j, None])[..., 0]
        value, at_low, at_high = log_between(
            (low[:, j:] - known) / width, (high[:, j:] - known) / width
        )
        first = np.argmin(np.where(np.isnan(value), -np.inf, value), axis=1)
        for array in (low, high, left, lower):
            _swap(array, every, j, first + j)
        with np.errstate(invalid="ignore"):
            z[:, j] = np.nan_to_num((at_low - at_high)[every, first], posinf=0.0, neginf=0.0)
        lower[:, j, j] = width[every, first]
        direction = left[:, j] / lower[:, j, j, None]
        lower[:, j + 1 :, j] = (left[:, j + 1 :] @ direction[..., None])[..., 0]
        left[:, j + 1 :] -= lower[:, j + 1 :, j, None] * direction[:, None]
    own = np.diagonal(lower, axis1=-2, axis2=-1)
    return _Chain(low / own, high / own, lower / own[..., None] - np.eye(d))


def _swap(array: Array, rows: np.ndarray, j: int, k: np.ndarray) -> None:
    """Exchange [row, j] and [row, k[row]] in every row."""
    first = array[rows, j].copy()
    array[rows, j] = array[rows, k]
    array[rows, k] = first
