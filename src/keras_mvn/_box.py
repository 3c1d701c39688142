"""P(lower ≤ Y ≤ upper) of normal distributions: integrals over boxes.

By what is exact or cheap. A structure R = I + V Vᵀ: given its r factors the targets are
independent, which leaves an integral over r dimensions, however many targets there are, and none
for independent ones. Two targets: SciPy's integrator, exact and deterministic. Else Genz's
transformation of the box into a unit cube, on targets sorted so that the most restrictive comes
first; for one target this is the distribution function.

The integrals are taken on Sobol' points, shifted at random several times: the shifts' spread is the
error. SciPy's own integrator for three targets and more works row by row and gives no error.

Source: Genz, "Numerical computation of multivariate normal probabilities", Journal of
Computational and Graphical Statistics 1 (1992); Genz & Bretz, "Computation of multivariate normal
and t probabilities", 2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from keras_mvn._checks import whole
from keras_mvn._gaussian import Gaussian, lower_factor
from keras_mvn._optional import require
from keras_mvn.types import Array

__all__ = ["box_probability"]

SHIFTS = 8
"""Random shifts of the points."""

_CHUNK = 4_000_000
"""Numbers in memory at a time."""


def box_probability(
    normal: Gaussian, lower: Array, upper: Array, samples: int, seed: int
) -> tuple[Array, Array]:
    """The probability (...) and two standard errors of it (...), 0 where it is exact."""
    whole(samples, "samples", "a number of points", 64)
    d, batch = normal.event_size, normal.batch_shape
    with np.errstate(invalid="ignore"):
        a, b = (
            np.broadcast_to((x - normal.mean) / normal.scale, normal.mean.shape).reshape(-1, d)
            for x in (lower, upper)
        )
    loadings = normal.loadings()
    if loadings is not None:
        value, error = _over_factors(a, b, loadings.reshape(len(a), d, -1), samples, seed)
    else:
        factor = normal.lower().reshape(-1, d, d)
        value, error = (
            _by_scipy(a, b, factor) if d == 2 else _over_cube(a, b, factor, samples, seed)
        )
    empty = (a > b).any(axis=-1)
    value, error = np.where(empty, 0.0, value), np.where(empty, 0.0, error)
    return value.reshape(batch)[()], error.reshape(batch)[()]


def _by_scipy(a: Array, b: Array, factor: Array) -> tuple[Array, Array]:
    """Two targets, row by row."""
    cdf = require("scipy.stats", "probability").multivariate_normal.cdf
    sigma = factor @ np.swapaxes(factor, -1, -2)
    rows = zip(a, b, sigma, strict=True)
    values = [cdf(upper, cov=matrix, lower_limit=lower) for lower, upper, matrix in rows]
    return np.array(values), np.zeros(len(a))


def _between(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Φ(high) − Φ(low), Φ(low) and a sign, both limits reflected to where Φ is small."""
    ndtr = require("scipy.special", "probability").ndtr
    sign = np.where(low > 0, -1.0, 1.0)
    start = ndtr(np.where(low > 0, -high, low))
    return ndtr(np.where(low > 0, -low, high)) - start, start, sign


def _over_factors(
    a: Array, b: Array, loadings: Array, samples: int, seed: int
) -> tuple[Array, Array]:
    """E_f Π_j [Φ(b_j − v_jᵀ f) − Φ(a_j − v_jᵀ f)], f standard normal."""
    d, r = loadings.shape[-2:]
    if r == 0:
        return np.prod(_between(a, b)[0], axis=-1), np.zeros(len(a))
    ndtri = require("scipy.special", "probability").ndtri

    def of(rows: slice, points: Array) -> Array:
        common = np.swapaxes(loadings[rows] @ ndtri(points).T, -1, -2)  # (rows, points, d)
        with np.errstate(divide="ignore"):
            log = np.log(_between(a[rows, None] - common, b[rows, None] - common)[0])
        return np.exp(log.sum(axis=-1))

    return _integrate(of, len(a), r, d + r, samples, seed)


def _over_cube(a: Array, b: Array, factor: Array, samples: int, seed: int) -> tuple[Array, Array]:
    """Genz: target by target, each given those before it."""
    ndtri = require("scipy.special", "probability").ndtri
    d = a.shape[-1]
    stddev = np.linalg.norm(factor, axis=-1)
    order = np.argsort(_between(a / stddev, b / stddev)[0], axis=-1)
    a, b = (np.take_along_axis(x, order, axis=-1) for x in (a, b))
    factor = lower_factor(np.take_along_axis(factor, order[..., None], axis=-2))

    def of(rows: slice, points: Array) -> Array:
        part = factor[rows]
        y = np.zeros((len(part), len(points), d))
        value = np.ones(y.shape[:2])
        for j in range(d):
            known = (y[..., :j] @ part[:, j, :j, None])[..., 0]
            width = part[:, j, j, None]
            share, start, sign = _between(
                (a[rows, j, None] - known) / width, (b[rows, j, None] - known) / width
            )
            value *= share
            if j < d - 1:
                inside = start + points[:, j] * share
                y[..., j] = sign * ndtri(np.clip(inside, 1e-300, 1.0 - 1e-16))
        return value

    return _integrate(of, len(a), max(d - 1, 1), d + 4, samples, seed)


def _integrate(
    of: Callable[[slice, Array], Array],
    rows: int,
    dimensions: int,
    memory: int,
    samples: int,
    seed: int,
) -> tuple[Array, Array]:
    """Mean and two standard errors of `of(rows, points in the unit cube)` (rows, points)."""
    base = _points(dimensions, math.ceil(samples / SHIFTS))
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // (len(base) * memory))
    estimates = np.zeros((SHIFTS, rows))
    for k in range(SHIFTS):
        shifted = (base + rng.random(dimensions)) % 1.0
        folded = np.clip(1.0 - np.abs(2.0 * shifted - 1.0), 1e-16, 1.0 - 1e-16)  # baker's transform
        for start in range(0, rows, step):
            part = slice(start, start + step)
            estimates[k, part] = of(part, folded).mean(axis=-1)
    return estimates.mean(axis=0), 2.0 * estimates.std(axis=0, ddof=1) / math.sqrt(SHIFTS)


def _points(dimensions: int, count: int) -> Array:
    """The first Sobol' points, at least so many: a power of two of them."""
    sobol = require("scipy.stats.qmc", "probability").Sobol(dimensions, scramble=False)
    return np.asarray(sobol.random_base2(math.ceil(math.log2(max(count, 8)))))
