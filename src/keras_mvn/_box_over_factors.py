"""P(lower ≤ Y ≤ upper) for R = I + V Vᵀ: an integral over r factors, for any number of targets.

The integrand φ(f) Π_j [Φ(b_j − v_jᵀ f) − Φ(a_j − v_jᵀ f)] is log-concave. Its mass may be far from
0 and narrow, so points are drawn around its mode, half of them as wide as its curvature there says
and half as wide as φ, and weighted by the density of both together.

Source: Owen & Zhou, "Safe and effective importance sampling", Journal of the American Statistical
Association 95 (2000).
"""

from __future__ import annotations

import math

import numpy as np

from keras_mvn._numeric import solve_lower
from keras_mvn._optional import require
from keras_mvn._quasi_monte_carlo import integrate
from keras_mvn.types import Array

__all__ = ["over_factors"]

_NEWTON, _HALVINGS = 50, 30
"""Steps to the mode, and how often one is halved."""

_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)


def _log_between(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """log [Φ(high) − Φ(low)], and φ(low) and φ(high) over that difference."""
    log_ndtr = require("scipy.special", "probability").log_ndtr
    reflected = low > 0
    below, above = np.where(reflected, -high, low), np.where(reflected, -low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_above = log_ndtr(above)
        value = log_above + np.log1p(-np.exp(log_ndtr(below) - log_above))
        ends = (np.exp(-0.5 * x * x - _LOG_ROOT_2PI - value) for x in (low, high))
        shares = [np.where(np.isfinite(x), p, 0.0) for x, p in zip((low, high), ends, strict=True)]
    return value, shares[0], shares[1]


def over_factors(
    a: Array, b: Array, loadings: Array, samples: int, seed: int
) -> tuple[Array, Array]:
    """E_f Π_j [Φ(b_j − v_jᵀ f) − Φ(a_j − v_jᵀ f)], f standard normal."""
    r = loadings.shape[-1]
    ndtri = require("scipy.special", "probability").ndtri
    mode, precision = _mode(a, b, loadings)
    narrow = np.linalg.cholesky(precision)
    log_width = -np.log(np.diagonal(narrow, axis1=-2, axis2=-1)).sum(axis=-1)

    def of(rows: slice, points: Array) -> Array:
        standard = ndtri(points)
        half = len(points) // 2
        spread = solve_lower(narrow[rows], standard[:half].T, transposed=True)
        inside = np.swapaxes(spread, -1, -2)
        beyond = np.broadcast_to(standard[half:], (len(inside), len(points) - half, r))
        step = np.concatenate([inside, beyond], axis=-2)
        f = mode[rows, None] + step
        common = f @ np.swapaxes(loadings[rows], -1, -2)  # (rows, points, d)
        log_target = _log_between(a[rows, None] - common, b[rows, None] - common)[0].sum(axis=-1)
        log_target -= 0.5 * (f**2).sum(axis=-1)
        scaled = step @ narrow[rows]
        log_narrow = -0.5 * (scaled**2).sum(axis=-1) - log_width[rows, None]
        log_wide = -0.5 * (step**2).sum(axis=-1)
        return np.exp(log_target - np.logaddexp(log_narrow, log_wide) + math.log(2.0))

    return integrate(of, len(a), r, sum(loadings.shape[-2:]), samples, seed)


def _mode(a: Array, b: Array, loadings: Array) -> tuple[Array, Array]:
    """Where the integrand over the factors is largest, and its precision there: Newton's method."""
    rows, _, r = loadings.shape
    f, transposed = np.zeros((rows, r)), np.swapaxes(loadings, -1, -2)

    def at(f: Array) -> tuple[Array, Array, Array]:
        common = (loadings @ f[..., None])[..., 0]
        low, high = a - common, b - common
        value, at_low, at_high = _log_between(low, high)
        with np.errstate(invalid="ignore"):
            ends = (np.where(p > 0, x * p, 0.0) for x, p in ((high, at_high), (low, at_low)))
            curvature = (at_high - at_low) ** 2 + next(ends) - next(ends)
        slope = -f - (transposed @ (at_high - at_low)[..., None])[..., 0]
        weighted = transposed * np.clip(curvature, 0.0, None)[..., None, :]
        log_density = value.sum(axis=-1) - 0.5 * (f**2).sum(axis=-1)
        return log_density, slope, np.eye(r) + weighted @ loadings

    value, slope, precision = at(f)
    for _ in range(_NEWTON):
        step = np.linalg.solve(precision, slope[..., None])[..., 0]
        size = np.ones(rows)
        for _ in range(_HALVINGS):
            found = at(f + size[:, None] * step)
            worse = ~(found[0] >= value)
            if not worse.any():
                break
            size = np.where(worse, 0.5 * size, size)
        size = np.where(worse, 0.0, size)
        f = f + size[:, None] * step
        value, slope, precision = at(f)
        if (np.abs(size[:, None] * step) < 1e-6).all():
            break
    return f, precision
