"""Building blocks of penalties: matrices, log-determinants and traces of a predicted covariance.

All of them use only the methods of `Covariance`, so they work for every structure, on tensors and
on NumPy arrays. With D = diag(R), the correlation matrix is C = D^(−½) R D^(−½): the scales drop
out, and the units with them. log det comes from `standardize`, never from a dense matrix.

Inverses come from whitening the columns of a matrix: ‖whiten(a)‖² = aᵀ R⁻¹ a, as accurate as the
structure's factor. This repeats the shape parameters d times, which takes O(d³) memory per row for
a triangular structure.
"""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import constant_like, namespace
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters

__all__ = [
    "correlation",
    "dense_covariance",
    "divergence_from",
    "half_log_det",
    "half_log_det_correlation",
    "partial_correlation",
    "precision",
    "trace_of_inverse_correlation",
]


def dense_covariance(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return the covariance matrix Σ (..., d, d)."""
    return covariance.covariance(parameters.scale, parameters.shape_params)


def correlation(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return the correlation matrix C (..., d, d), without squaring the scales."""
    d = parameters.scale.shape[-1]
    root = _shape_stddev(covariance, parameters)
    r = covariance.shape_matrix(parameters.shape_params, d)
    return r / root[..., :, None] / root[..., None, :]


def precision(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return the precision matrix Σ⁻¹ (..., d, d)."""
    z, _ = _standardize_columns(covariance, parameters, np.eye(parameters.scale.shape[-1]))
    return z @ namespace(z).swapaxes(z, -1, -2)


def partial_correlation(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return K_ij / √(K_ii K_jj), K = Σ⁻¹: minus the partial correlations, 1 on the diagonal."""
    unscaled = _without_scale(parameters)
    z, _ = _standardize_columns(covariance, unscaled, np.eye(parameters.scale.shape[-1]))
    xp = namespace(z)
    unit = z / xp.sqrt(xp.sum(z * z, axis=-1, keepdims=True))
    return unit @ xp.swapaxes(unit, -1, -2)


def half_log_det(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return the half log-determinant ½ log det Σ (...)."""
    _, scale, shape_params = parameters
    zero = namespace(scale).zeros_like(scale)
    return covariance.standardize(zero, scale, shape_params)[1]


def half_log_det_correlation(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return ½ log det C = ½ log det R − ½ Σ log R_jj ≤ 0 (...)."""
    root = _shape_stddev(covariance, parameters)
    xp = namespace(root)
    return half_log_det(covariance, _without_scale(parameters)) - xp.sum(xp.log(root), axis=-1)


def trace_of_inverse_correlation(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return tr C⁻¹ = Σ R_jj (R⁻¹)_jj ≥ d (...), the sum of the variance inflation factors."""
    unscaled = _without_scale(parameters)
    z, _ = _standardize_columns(covariance, unscaled, np.eye(parameters.scale.shape[-1]))
    root = _shape_stddev(covariance, parameters)
    xp = namespace(z)
    inflated = root[..., :, None] * z
    return xp.sum(inflated * inflated, axis=(-2, -1))


def divergence_from(
    factor: Array, covariance: Covariance, parameters: Parameters, half_log_det_factor: float
) -> Tensor:
    """Return KL(N(μ, T) ‖ N(μ, Σ)) (...), where T = F Fᵀ and F is `factor`.

    KL = ½ tr(T Σ⁻¹) − ½ d + ½ log det Σ − ½ log det T. The columns of F are whitened, so the units
    are divided out before anything is squared.
    """
    z, half_log_det = _standardize_columns(covariance, parameters, factor)
    squares = 0.5 * namespace(z).sum(z * z, axis=(-2, -1))
    return squares - 0.5 * factor.shape[-1] + (half_log_det - half_log_det_factor)


def _standardize_columns(
    covariance: Covariance, parameters: Parameters, matrix: Array
) -> tuple[Tensor, Tensor]:
    """Return the standardized columns of `matrix` as rows (..., d, d), and ½ log det Σ (...)."""
    _, scale, shape_params = parameters
    # Structures expect equal batch axes, so every argument gets the axis over columns.
    zero = namespace(scale).zeros_like(scale)[..., :, None]
    columns = zero + constant_like(matrix.T, scale)
    z, half_log_det = covariance.standardize(
        columns, zero + scale[..., None, :], zero + shape_params[..., None, :]
    )
    return z, half_log_det[..., 0]


def _without_scale(parameters: Parameters) -> Parameters:
    """Return the parameters with all scales set to 1, so that Σ = R."""
    mean, scale, shape_params = parameters
    return Parameters(mean, namespace(scale).ones_like(scale), shape_params)


def _shape_stddev(covariance: Covariance, parameters: Parameters) -> Tensor:
    """Return √R_jj (..., d)."""
    unscaled = _without_scale(parameters)
    variance = covariance.variance(unscaled.scale, unscaled.shape_params)
    return namespace(variance).sqrt(variance)
