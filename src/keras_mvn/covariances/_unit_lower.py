"""Arithmetic with A = I + N, unit lower triangular, shared by the triangular structures.

log det A = 0 and substitution divides by nothing, so it neither fails nor needs a floor.
"""

from __future__ import annotations

import numpy as np

from keras_mvn._numeric import namespace, solve_lower
from keras_mvn.covariances.packing import pack_strict_lower, unpack_strict_lower
from keras_mvn.types import Tensor

__all__ = ["inverse_matrix", "matrix", "multiply", "outer_strict_lower", "solve", "zero_log_det"]


def matrix(shape_params: Tensor, event_size: int) -> Tensor:
    """The dense A = I + N: (..., k) → (..., d, d)."""
    n = unpack_strict_lower(shape_params, event_size)
    return n + _identity(n)


def inverse_matrix(shape_params: Tensor, event_size: int) -> Tensor:
    """The dense A⁻¹: (..., k) → (..., d, d)."""
    a = matrix(shape_params, event_size)
    return solve_lower(a, namespace(a).zeros_like(a) + _identity(a))


def multiply(shape_params: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    """A x, or Aᵀ x."""
    n = unpack_strict_lower(shape_params, x.shape[-1])
    if transposed:
        n = namespace(n).swapaxes(n, -1, -2)
    return x + (n @ x[..., None])[..., 0]


def solve(shape_params: Tensor, b: Tensor, *, transposed: bool = False) -> Tensor:
    """A⁻¹ b, or A⁻ᵀ b, by substitution."""
    a = matrix(shape_params, b.shape[-1])
    return solve_lower(a, b[..., None], transposed=transposed)[..., 0]


def outer_strict_lower(a: Tensor, b: Tensor) -> Tensor:
    """tril(a bᵀ, −1), packed: (..., d), (..., d) → (..., k)."""
    return pack_strict_lower(a[..., :, None] * b[..., None, :])


def zero_log_det(u: Tensor) -> Tensor:
    """½ log det R of a unit triangular factor: zeros (...)."""
    return namespace(u).zeros_like(u[..., 0])


def _identity(like: Tensor) -> Tensor:
    eye = np.eye(like.shape[-1])
    xp = namespace(like)
    return eye if xp is np else xp.cast(eye, like.dtype)
