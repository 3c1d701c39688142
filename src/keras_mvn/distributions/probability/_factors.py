"""P(lower ≤ Y ≤ upper) for R = I + V Vᵀ, as an integral over r factors for any number of targets.

The integrand φ(f) Π_j [Φ(b_j − v_jᵀ f) − Φ(a_j − v_jᵀ f)] is log-concave. Its mass may be far from
0, narrow, and have sharp edges. Half of the points are drawn from a normal with its mean and
covariance, estimated from a few points around the mode; the other half are as wide as φ around the
mode, from which the integrand falls at least as fast as φ. Points are weighted by the density of
this mixture, so that no weight is large.

Source: Owen & Zhou, "Safe and effective importance sampling", Journal of the American Statistical
Association 95 (2000); the moments: Cappé et al., "Adaptive importance sampling in general mixture
classes", Statistics and Computing 18 (2008).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from keras_mvn._core.numeric import solve_lower
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions.probability._mode import mode_over_factors
from keras_mvn.distributions.probability._quasi_monte_carlo import integrate, parts, shifted_points
from keras_mvn.distributions.probability._truncated_normal import log_between

__all__ = ["over_factors"]

_ROUNDS, _PILOT = 3, 512
"""Number of rounds in which moments are estimated, and of points in each round."""


def over_factors(
    a: Array, b: Array, loadings: Array, samples: int, seed: int
) -> tuple[Array, Array]:
    """Estimate E_f Π_j [Φ(b_j − v_jᵀ f) − Φ(a_j − v_jᵀ f)], f standard normal."""
    rows, d, r = loadings.shape
    mode, precision = mode_over_factors(a, b, loadings)
    integrand = _Integrand(a, b, loadings)
    identity = np.broadcast_to(np.eye(r), precision.shape)
    root = solve_lower(np.linalg.cholesky(precision), identity)
    proposal = _Proposal(mode, mode.copy(), np.linalg.cholesky(_transposed(root) @ root))
    rng = np.random.default_rng(seed)
    for _ in range(_ROUNDS):
        points = shifted_points(r, _PILOT, rng)
        for part in parts(rows, len(points) * (d + r)):
            proposal.match(part, *proposal.draw(part, points), integrand)

    def of(part: slice, points: Array) -> Array:
        f, log_density = proposal.draw(part, points)
        return np.exp(integrand.log(part, f) - log_density)

    return integrate(of, rows, r, d + r, samples, seed)


@final
@dataclass(frozen=True)
class _Integrand:
    a: Array
    b: Array
    loadings: Array

    def log(self, part: slice, f: Array) -> Array:
        """The log of (2π)^(r/2) times the integrand at f (rows, points, r): (rows, points)."""
        common = f @ _transposed(self.loadings[part])
        between = log_between(self.a[part, None] - common, self.b[part, None] - common)[0]
        return between.sum(axis=-1) - 0.5 * (f**2).sum(axis=-1)


@final
@dataclass(frozen=True)
class _Proposal:
    """The mixture ½ N(center, F Fᵀ) + ½ N(mode, I); modes, centers (rows, r), F (rows, r, r)."""

    mode: Array
    center: Array
    factor: Array

    def draw(self, part: slice, points: Array) -> tuple[Array, Array]:
        """Map points in the cube to factors (rows, points, r) and log((2π)^(r/2) density)."""
        standard = require("scipy.special", "probability").ndtri(points)
        half = len(points) // 2  # both halves of Sobol' points are evenly spread
        mode, center, factor = self.mode[part, None], self.center[part, None], self.factor[part]
        inside = center + standard[:half] @ _transposed(factor)
        f = np.concatenate([inside, mode + standard[half:]], axis=-2)
        identity = np.broadcast_to(np.eye(factor.shape[-1]), factor.shape)
        inverse = solve_lower(factor, identity)
        log_narrow = -0.5 * (((f - center) @ _transposed(inverse)) ** 2).sum(axis=-1)
        log_narrow -= np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)[:, None]
        log_wide = -0.5 * ((f - mode) ** 2).sum(axis=-1)
        return f, np.logaddexp(log_narrow, log_wide) - math.log(2.0)

    def match(self, part: slice, f: Array, log_density: Array, integrand: _Integrand) -> None:
        """Adopt the integrand's moments, in rows where enough points determine them."""
        log_weight = integrand.log(part, f) - log_density
        weight = np.exp(log_weight - log_weight.max(axis=-1, keepdims=True))
        weight /= weight.sum(axis=-1, keepdims=True)
        enough = 1.0 / (weight**2).sum(axis=-1) > 10 * f.shape[-1]
        mean = (weight[..., None] * f).sum(axis=-2)
        error = f - mean[:, None]
        covariance = _transposed(weight[..., None] * error) @ error
        if enough.any():
            rows = np.flatnonzero(enough) + part.start
            self.center[rows] = mean[enough]
            self.factor[rows] = np.linalg.cholesky(covariance[enough])


def _transposed(matrix: Array) -> Array:
    return np.swapaxes(matrix, -1, -2)
