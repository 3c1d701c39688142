"""Arrays from a user, checked and turned into float64 NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mvn.types import Array

__all__ = ["finite", "square", "symmetric"]


def finite(values: Any, name: str) -> Array:
    """An array of numbers, none of them NaN or infinite."""
    if keras.ops.is_tensor(values):
        values = keras.ops.convert_to_numpy(values)
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(
            f"{name} holds {np.count_nonzero(~np.isfinite(array))} values that are NaN or "
            f"infinite, the first at index {tuple(bad)}."
        )
    return array


def square(values: Any, name: str, event_shape: tuple[int, ...]) -> Array:
    """Finite d × d matrices that fit a mean with this last axis."""
    matrix = finite(values, name)
    if matrix.ndim < 2 or matrix.shape[-2:] != event_shape * 2 or not event_shape:
        raise ValueError(
            f"{name} has shape {matrix.shape}; for a mean with last axis {event_shape} it must be "
            f"(..., d, d) = (..., {', '.join(map(str, event_shape * 2))})."
        )
    return matrix


def symmetric(matrix: Array, name: str) -> Array:
    """(A + Aᵀ)/2 of matrices that are symmetric to six digits."""
    transposed = np.swapaxes(matrix, -1, -2)
    root = np.sqrt(np.abs(np.diagonal(matrix, axis1=-2, axis2=-1)))
    size = root[..., :, None] * root[..., None, :]
    if (np.abs(matrix - transposed) > 1e-6 * size).any():
        raise ValueError(f"{name} must be symmetric; it differs from its transpose.")
    return 0.5 * (matrix + transposed)
