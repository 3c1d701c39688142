"""Arrays from a user, checked and turned into float64 NumPy."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mvn.types import Array

__all__ = [
    "finite",
    "names_of_targets",
    "observations",
    "probability",
    "square",
    "symmetric",
    "whole",
]


def whole(value: Any, name: str, meaning: str, minimum: int) -> int:
    """An integer, at least `minimum`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < minimum:
        raise ValueError(f"{name}={value!r} must be {meaning}, an integer ≥ {minimum}.")
    return number


def probability(value: Any, name: str) -> float:
    """A number between 0 and 1, both excluded."""
    level = float(value) if isinstance(value, numbers.Real) else float("nan")
    if not 0.0 < level < 1.0:
        raise ValueError(f"{name}={value!r} must be a probability between 0 and 1.")
    return level


def names_of_targets(names: Sequence[str] | None, event_size: int) -> tuple[str, ...] | None:
    """d different names, or None."""
    if names is None:
        return None
    strings = () if isinstance(names, str) else tuple(map(str, names))
    if len(strings) != event_size or len(set(strings)) != event_size:
        raise ValueError(
            f"target_names={names!r} must be {event_size} different names, one per target."
        )
    return strings


def observations(y: Any, like: Array) -> Array:
    """What was observed for each of these predicted means: the same shape, nothing broadcast."""
    values = finite(y, "y")
    if values.shape != like.shape:
        raise ValueError(
            f"y has shape {values.shape}; the predictions are for {like.shape}, one row each."
        )
    return values


def finite(values: Any, name: str) -> Array:
    """An array of numbers, none of them NaN or infinite."""
    if keras.ops.is_tensor(values):
        values = keras.ops.convert_to_numpy(values)
    array = np.array(values, dtype=np.float64)  # a copy: the caller may go on writing to theirs
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
    if matrix.ndim < 2 or matrix.shape[-2:] != event_shape * 2 or event_shape in ((), (0,)):
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
