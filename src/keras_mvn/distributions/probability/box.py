"""The probability P(lower ≤ Y ≤ upper) of elliptical distributions: integrals over boxes.

The method is whichever is exact or cheap. One target: the distribution function. Two targets:
SciPy's integrator, exact and deterministic. Many targets with R = I + V Vᵀ: they are independent
given the r factors, which leaves an integral over r dimensions, however many targets there are, and
no integral for independent targets. Otherwise: one target after another, each given those before
it, which is an integral over a unit cube.

A Student's t is a normal with a random scale, and its probability the mean of the normal's, by a
quadrature over the scale; for one target, it is the difference of two distribution functions.

The integrals use Sobol' points with several random shifts, whose spread gives the error. SciPy's
own integrator for three or more targets works row by row and gives no error.

Source: Genz & Bretz, "Computation of multivariate normal and t probabilities", 2009.
"""

from __future__ import annotations

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions._radial_law import RadialLaw
from keras_mvn.distributions.probability._factors import over_factors
from keras_mvn.distributions.probability._tilted_cube import over_cube
from keras_mvn.distributions.probability._truncated_normal import between

__all__ = ["box_probability"]

_FEW = 20
"""Number of targets up to which a cube is integrated, not factors: it needs no search for mass."""


_SHARE = 4
"""Points of one node are fewer than those of a normal by this factor; the nodes' errors average."""


def box_probability(
    gaussian: Gaussian, law: RadialLaw, lower: Array, upper: Array, samples: int, seed: int
) -> tuple[Array, Array]:
    """Return the probability (...) and two standard errors (...), 0 where it is exact."""
    whole(samples, "samples", "a number of points", 64)
    scales, weights = law.nodes(power=0.0)
    if scales.shape[-1] == 1:
        return _of_normal(gaussian, lower, upper, samples, seed)
    if gaussian.event_size == 1:
        return _of_one(gaussian, law, lower, upper)
    value, square = np.zeros(gaussian.batch_shape), np.zeros(gaussian.batch_shape)
    points = max(64, samples // _SHARE)
    for k in range(scales.shape[-1]):
        node = gaussian.rescale(np.sqrt(scales[..., k, None]))
        part, error = _of_normal(node, lower, upper, points, seed + k)
        value = value + weights[..., k] * part
        square = square + (weights[..., k] * error) ** 2
    return value[()], np.sqrt(square)[()]


def _of_one(gaussian: Gaussian, law: RadialLaw, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The probability for one target, from the tail that is nearer."""
    scale = np.sqrt(gaussian.variance())
    a, b = (lower - gaussian.mean) / scale, (upper - gaussian.mean) / scale
    right = a > 0.0
    a, b = np.where(right, -b, a), np.where(right, -a, b)
    value = np.maximum(law.margin_cdf(b) - law.margin_cdf(a), 0.0)[..., 0]
    return value[()], np.zeros(value.shape)[()]


def _of_normal(
    normal: Gaussian, lower: Array, upper: Array, samples: int, seed: int
) -> tuple[Array, Array]:
    d, batch = normal.event_size, normal.batch_shape
    with np.errstate(invalid="ignore"):
        a, b = (
            np.broadcast_to((x - normal.mean) / normal.scale, normal.mean.shape).reshape(-1, d)
            for x in (lower, upper)
        )
    empty = np.asarray((a >= b).any(axis=-1))
    a, b = np.where(empty[:, None], -np.inf, a), np.where(empty[:, None], np.inf, b)
    loadings = normal.loadings()
    if loadings is not None and loadings.shape[-1] == 0:  # independent
        value, error = np.prod(between(a, b), axis=-1), np.zeros(len(a))
    elif loadings is not None and d > _FEW:
        value, error = over_factors(a, b, loadings.reshape(len(a), d, -1), samples, seed)
    else:
        factor = normal.lower().reshape(-1, d, d)
        stddev = np.linalg.norm(factor, axis=-1)
        with np.errstate(invalid="ignore"):
            box = a / stddev, b / stddev, factor / stddev[..., None]
        if d == 1:
            value, error = between(*box[:2])[..., 0], np.zeros(len(a))
        else:
            value, error = _by_scipy(*box) if d == 2 else over_cube(*box, samples, seed)
    value, error = np.where(empty, 0.0, value), np.where(empty, 0.0, error)
    return value.reshape(batch)[()], error.reshape(batch)[()]


def _by_scipy(a: Array, b: Array, factor: Array) -> tuple[Array, Array]:
    """The probability for two targets of variance 1, row by row."""
    cdf = require("scipy.stats", "probability").multivariate_normal.cdf
    values = []
    for lower, upper, (first, second) in zip(a, b, factor, strict=True):
        rho = float(np.clip(first @ second, -1.0, 1.0))
        matrix = [[1.0, rho], [rho, 1.0]]
        values.append(cdf(upper, cov=matrix, lower_limit=lower, allow_singular=True))
    return np.clip(values, 0.0, 1.0).reshape(len(a)), np.zeros(len(a))
