"""Differences between the targets of a row, pair by pair, on tensors and arrays.

The variogram score compares |yᵢ − yⱼ|^p with its expectation; loss and score both use this module.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
import numpy as np

from keras_mvn._core.norm_quadrature import norm_power_rule
from keras_mvn._core.numeric import constant_like, namespace
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.covariances.packing import pack_strict_lower

__all__ = ["checked_power", "difference_variances", "mean_power", "pair_differences"]

_TINY = 1e-12
"""Added to mean squares on tensors, in squared standard deviations of y, as 0^p has no slope."""


def checked_power(p: Any) -> float:
    """Check and return the power p of a variogram, a number in (0, 2].

    Raises:
        ValueError: p is anything else.

    """
    power = float(p) if isinstance(p, numbers.Real) else float("nan")
    if not 0.0 < power <= 2.0:
        raise ValueError(f"p={p!r} must be greater than 0 and at most 2.")
    return power


def pair_differences(x: Tensor) -> Tensor:
    """Return xᵢ − xⱼ for every pair i > j: (..., d) → (..., d(d − 1)/2)."""
    return pack_strict_lower(x[..., :, None] - x[..., None, :])


def difference_variances(covariance: Covariance, scale: Tensor, shape_params: Tensor) -> Tensor:
    """Return Var(Xᵢ − Xⱼ) for every pair i > j: (..., d(d − 1)/2).

    They are sums of squared differences between rows of a factor of Σ. Σᵢᵢ + Σⱼⱼ − 2Σᵢⱼ would
    lose the small difference between two strongly correlated targets.
    """
    d = scale.shape[-1]
    loadings, own = covariance.loadings(shape_params, d), scale * scale
    if loadings is None:
        rows = scale[..., None] * covariance.coloring_matrix(shape_params, d)
        squares = _squared_distances(rows)
    else:
        squares = _squared_distances(scale[..., None] * loadings)
        squares = squares + own[..., :, None] + own[..., None, :]
    return pack_strict_lower(squares)


def _squared_distances(rows: Tensor) -> Tensor:
    """Return ‖rᵢ − rⱼ‖² for all pairs of rows: (..., d, p) → (..., d, d)."""
    gaps = rows[..., :, None, :] - rows[..., None, :, :]
    return namespace(rows).sum(gaps * gaps, axis=-1)


def mean_power(gap: Tensor, variance: Tensor, p: float) -> Tensor:
    """Return E |X|^p for X ~ N(gap, variance), elementwise.

    On arrays, it is s^p 2^(p/2) Γ((1 + p)/2)/√π · ₁F₁(−p/2; ½; −gap²/2s²), s² the variance,
    accurate to 1e-13. On tensors, for which there is no hypergeometric function, it is evaluated
    at the 64 nodes of `norm_power_rule`.

    Source: Winkelbauer, "Moments and absolute moments of the normal distribution", 2012.
    """
    if namespace(gap, variance) is np:
        return _by_kummers_function(gap, variance, p)
    if p == 2.0:
        return variance + gap * gap
    nodes, weights = (constant_like(array, gap) for array in norm_power_rule(p))
    # The integral does not depend on where its nodes are, so no gradient flows through them.
    squared = keras.ops.stop_gradient(variance + gap * gap) + _TINY
    t = nodes / squared[..., None]
    growth = 2.0 * t * variance[..., None]
    log_phi = -0.5 * keras.ops.log1p(growth) - t * (gap * gap)[..., None] / (1.0 + growth)
    total = keras.ops.sum(weights * -keras.ops.expm1(log_phi), axis=-1)
    return total * squared ** (0.5 * p)


def _by_kummers_function(gap: Array, variance: Array, p: float) -> Array:
    hyp1f1 = require("scipy.special", "variogram_score").hyp1f1
    constant = 2.0 ** (0.5 * p) * math.gamma(0.5 * (1.0 + p)) / math.sqrt(math.pi)
    shape = hyp1f1(-0.5 * p, 0.5, -0.5 * gap**2 / variance)
    return np.asarray(constant * variance ** (0.5 * p) * shape)
