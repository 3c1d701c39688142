"""Checks of user input, and its conversion to float64 NumPy arrays."""

from __future__ import annotations

import contextlib
import numbers
import operator
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array

__all__ = [
    "as_numbers",
    "as_numpy",
    "explained_shapes",
    "finite",
    "fitting",
    "group_labels",
    "limit",
    "linear_functions",
    "lower_triangular",
    "positive",
    "probability",
    "square",
    "symmetric",
    "unmasked",
    "whole",
]


def whole(value: Any, name: str, meaning: str, minimum: int) -> int:
    """Return value as an int of at least `minimum`; `meaning` is for the error message."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < minimum:
        raise ValueError(f"{name}={value!r} must be {meaning}, an integer ≥ {minimum}.")
    return number


def probability(value: Any, name: str) -> float:
    """Return value as a float strictly between 0 and 1."""
    level = float(value) if isinstance(value, numbers.Real) else float("nan")
    if not 0.0 < level < 1.0:
        raise ValueError(f"{name}={value!r} must be a probability between 0 and 1.")
    return level


def as_numpy(values: Any) -> Any:
    """Convert backend tensors, which may be on another device; return anything else unchanged."""
    return keras.ops.convert_to_numpy(values) if keras.ops.is_tensor(values) else values


def as_numbers(values: Any) -> Any:
    """Convert values for NumPy, with NaN for masked entries and for pandas' NA."""
    values = unmasked(as_numpy(values))
    return values.astype("float64") if hasattr(values, "isna") else values


def unmasked(values: Any) -> Any:
    """Return NaN in place of masked entries: what lies under a mask was not observed."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    return np.ma.filled(values, np.nan)


def group_labels(groups: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return one group label per row, with dates as text.

    Raises:
        ValueError: the number of labels is wrong, or a row has no label.

    """
    labels = np.asarray(groups)
    if labels.shape != shape:
        raise ValueError(f"groups has shape {labels.shape}; there must be one for each of {shape}.")
    nameless = [_is_nothing(label) for label in labels.reshape(-1).tolist()]
    if any(nameless):
        raise ValueError(
            f"groups contains None or NaN in {sum(nameless)} rows, the first at position "
            f"{nameless.index(True)}. Give rows without a group their own label."
        )
    return labels.astype(str) if labels.dtype.kind in "OM" else labels


def _is_nothing(label: Any) -> bool:
    """Whether label is None, NaN, NaT or pandas' NA, which does not support comparison."""
    return label is None or type(label).__name__ == "NAType" or label != label


def finite(values: Any, name: str) -> Array:
    """Return values as an array of finite numbers."""
    array = np.array(as_numbers(values), dtype=np.float64)  # a copy: the caller may modify it
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(
            f"{name} contains NaN or infinite values ({np.count_nonzero(~np.isfinite(array))} in "
            f"total), the first at index {tuple(bad)}."
        )
    return array


def positive(values: Any, name: str) -> Array:
    """Return values as an array of positive numbers."""
    array = finite(values, name)
    if not (array > 0).all():
        raise ValueError(f"{name}={values!r} must be positive.")
    return array


def limit(values: Any, name: str) -> Array:
    """Return values as an array of numbers, which may be infinite but not NaN."""
    array = np.array(as_numbers(values), dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError(f"{name} contains NaN. For no limit, pass inf (−inf for a lower limit).")
    return array


def fitting(array: Array, event_shape: tuple[int, ...], name: str) -> Array:
    """Check that the last axes of array are `event_shape`; repeat a single number."""
    if array.ndim == 0:
        return np.full(event_shape, array)
    if array.shape[-len(event_shape) :] != event_shape:
        raise ValueError(
            f"{name} has shape {array.shape}; its last axes must be {event_shape}, or it must be "
            "one number."
        )
    return array


def linear_functions(values: Any, name: str, event_size: int) -> Array:
    """Return m finite rows, (..., m, d); (d,) is one row."""
    matrix = np.atleast_2d(finite(values, name))
    if matrix.shape[-1] != event_size or 0 in matrix.shape:
        raise ValueError(
            f"{name} has shape {np.shape(values)}; for functions of {event_size} targets it must "
            f"be (..., m, {event_size}), or ({event_size},) for one function."
        )
    return matrix


def lower_triangular(matrix: Array, name: str = "scale_tril") -> Array:
    """Check that matrices are lower triangular with a positive diagonal."""
    if not (np.diagonal(matrix, axis1=-2, axis2=-1) > 0).all():
        raise ValueError(f"{name} must have a positive diagonal.")
    if np.triu(matrix, 1).any():
        raise ValueError(
            f"{name} must be lower triangular, but entries above its diagonal are not zero. Pass a "
            "covariance matrix as covariance=."
        )
    return matrix


@contextlib.contextmanager
def explained_shapes(name: str, shape: Any, batch: Any) -> Iterator[None]:
    """Replace NumPy's broadcasting errors with a message that names the argument."""
    try:
        yield
    except ValueError as error:
        if error.args and "broadcast" not in str(error) and "mismatch" not in str(error):
            raise
        raise ValueError(
            f"{name} has shape {shape}, which does not fit the distributions, of shape {batch}."
        ) from None


def square(values: Any, name: str, event_shape: tuple[int, ...]) -> Array:
    """Return values as finite d × d matrices that match a mean with this last axis."""
    matrix = finite(values, name)
    if matrix.ndim < 2 or matrix.shape[-2:] != event_shape * 2 or event_shape in ((), (0,)):
        raise ValueError(
            f"{name} has shape {matrix.shape}; for a mean with last axis {event_shape} it must be "
            f"(..., d, d) = (..., {', '.join(map(str, event_shape * 2))})."
        )
    return matrix


def symmetric(matrix: Array, name: str) -> Array:
    """Return (A + Aᵀ)/2 for matrices that are symmetric to six digits."""
    transposed = np.swapaxes(matrix, -1, -2)
    root = np.sqrt(np.abs(np.diagonal(matrix, axis1=-2, axis2=-1)))
    size = root[..., :, None] * root[..., None, :]
    if (np.abs(matrix - transposed) > 1e-6 * size).any():
        raise ValueError(f"{name} must be symmetric, but differs from its transpose.")
    return 0.5 * (matrix + transposed)
