"""Conversion of a dense matrix to the (scale, N) of its unit triangular factor, in float64."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.covariances.packing import pack_strict_lower

__all__ = ["cholesky", "cholesky_parameters", "correlation_cholesky", "precision_parameters"]


def correlation_cholesky(covariance: Array) -> tuple[Array, Array]:
    """Return the standard deviations, and the Cholesky factor of the correlation matrix.

    The standard deviations are divided out first, so that units cost no accuracy.

    Raises:
        ValueError: Σ is not positive definite.

    """
    with np.errstate(invalid="ignore", divide="ignore"):  # `cholesky` rejects invalid results
        stddev = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        correlation = covariance / stddev[..., :, None] / stddev[..., None, :]
    return stddev, cholesky(correlation, "covariance")


def cholesky_parameters(covariance: Array) -> tuple[Array, Array]:
    """Return (scale, N) with Σ = S (I + N)(I + N)ᵀ S.

    Raises:
        ValueError: Σ is not positive definite.

    """
    stddev, factor = correlation_cholesky(covariance)
    root = np.diagonal(factor, axis1=-2, axis2=-1)
    return stddev * root, pack_strict_lower(factor / root[..., None])


def precision_parameters(precision: Array) -> tuple[Array, Array]:
    """Return (scale, N) with Σ⁻¹ = S⁻¹ (I + N)ᵀ (I + N) S⁻¹.

    Σ⁻¹ = Pᵀ P with P lower triangular is the Cholesky factorization with the targets in reverse
    order.

    Raises:
        ValueError: Σ⁻¹ is not positive definite.

    """
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(np.diagonal(precision, axis1=-2, axis2=-1))
        standardized = precision / root[..., :, None] / root[..., None, :]
    reverse = cholesky(standardized[..., ::-1, ::-1], "precision")[..., ::-1, ::-1]
    factor = np.swapaxes(reverse, -1, -2)  # lower triangular; Fᵀ F = standardized, P = F diag(root)
    unit = np.diagonal(factor, axis1=-2, axis2=-1)
    return 1.0 / (root * unit), pack_strict_lower(factor / unit[..., None, :])


def cholesky(matrix: Array, name: str) -> Array:
    """Return L with A = L Lᵀ, where A is `matrix`.

    Raises:
        ValueError: A is not positive definite.

    """
    try:
        if not np.isfinite(matrix).all():
            raise np.linalg.LinAlgError
        return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name} must be symmetric and positive definite, but at least one matrix of shape "
            f"{matrix.shape[-2:]} in the batch is not. Check for negative or zero variances, for "
            "targets that are copies or sums of others, and for NaN."
        ) from None
