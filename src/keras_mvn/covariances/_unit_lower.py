"""Arithmetic with the unit lower triangular A = I + N, shared by the triangular structures.

log det A = 0, and substitution involves no division, so it neither fails nor needs a floor.
"""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import constant_like, namespace, solve_lower
from keras_mvn._core.types import Tensor
from keras_mvn.covariances._solver_free import inverse_unit_lower
from keras_mvn.covariances.packing import pack_strict_lower, unpack_strict_lower

__all__ = [
    "factor_bar",
    "half_diagonal",
    "inverse_matrix",
    "matrix",
    "multiply",
    "outer_strict_lower",
    "row_squares",
    "solve",
    "unit_tangent",
    "zero_half_log_det",
]


def matrix(shape_params: Tensor, event_size: int) -> Tensor:
    """Return the dense A = I + N: (..., k) → (..., d, d)."""
    n = unpack_strict_lower(shape_params, event_size)
    return n + _identity(n)


def inverse_matrix(shape_params: Tensor, event_size: int) -> Tensor:
    """Return the dense A⁻¹: (..., k) → (..., d, d)."""
    return inverse_unit_lower(matrix(shape_params, event_size))


def multiply(shape_params: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """Return A x, or Aᵀ x if transposed."""
    n = unpack_strict_lower(shape_params, x.shape[-1])
    if transposed:
        n = namespace(n).swapaxes(n, -1, -2)
    return x + (n @ x[..., None])[..., 0]


def solve(shape_params: Tensor, b: Tensor, *, transposed: bool = False) -> Tensor:
    """Return A⁻¹ b, or A⁻ᵀ b if transposed, by substitution."""
    a = matrix(shape_params, b.shape[-1])
    return solve_lower(a, b[..., None], transposed=transposed)[..., 0]


def outer_strict_lower(a: Tensor, b: Tensor) -> Tensor:
    """Return tril(a bᵀ, −1), packed: (..., d), (..., d) → (..., k)."""
    return pack_strict_lower(a[..., :, None] * b[..., None, :])


def row_squares(factor: Tensor) -> Tensor:
    """Return the diagonal of F Fᵀ without forming the product: (..., d, d) → (..., d)."""
    return namespace(factor).sum(factor * factor, axis=-1)


def factor_bar(
    shape_params: Tensor, shape_bar: Tensor, log_diagonal_bar: Tensor, *, columns: bool = False
) -> Tensor:
    """Return the gradient in the factor D (I + N), at D = I, from the gradients in N and log D.

    With columns=True, the factor is (I + N) D. D scales the rows (or columns), so if the product is
    held fixed, an entry of N changes in the opposite direction.

    (..., k), (..., k), (..., d) → (..., d, d), lower triangular.
    """
    d = log_diagonal_bar.shape[-1]
    n, n_bar = unpack_strict_lower(shape_params, d), unpack_strict_lower(shape_bar, d)
    moved = namespace(n).sum(n_bar * n, axis=-2 if columns else -1)
    return n_bar + _identity(n) * (log_diagonal_bar - moved)[..., None]


def half_diagonal(square: Tensor) -> Tensor:
    """Return the lower triangle with half the diagonal."""
    return namespace(square).tril(square) * (1.0 - 0.5 * _identity(square))


def unit_tangent(
    shape_params: Tensor, tangent: Tensor, diagonal_dot: Tensor, *, columns: bool = False
) -> Tensor:
    """Return the change of N (..., k) when its factor changes by `tangent`, given its diagonal."""
    n = unpack_strict_lower(shape_params, diagonal_dot.shape[-1])
    rate = diagonal_dot[..., None, :] if columns else diagonal_dot[..., :, None]
    return pack_strict_lower(tangent - n * rate)


def zero_half_log_det(u: Tensor) -> Tensor:
    """Return ½ log det R for a unit triangular factor: zeros (...)."""
    return namespace(u).zeros_like(u[..., 0])


def _identity(like: Tensor) -> Tensor:
    return constant_like(np.eye(like.shape[-1]), like)
