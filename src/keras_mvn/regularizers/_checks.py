"""Checks of the arguments of penalties."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from keras_mvn._core.checks import finite, symmetric
from keras_mvn._core.types import Array

__all__ = ["at_least", "check_event_size", "factor_of"]


def at_least(value: Any, name: str, minimum: float) -> float:
    """Return value as a float; it must be a finite number of at least `minimum`."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if not minimum <= number < math.inf:
        raise ValueError(f"{name}={value!r} must be a number ≥ {minimum:g}.")
    return number


def check_event_size(expected: int, event_size: int, argument: str) -> None:
    """Check that an argument of shape (d, d) or (d,) matches the prediction's number of targets."""
    if expected != event_size:
        raise ValueError(
            f"{argument} is for {expected} targets, but the prediction has {event_size}. Pass the "
            "values for the targets that the head predicts, in the same order."
        )


def factor_of(matrix: Any, name: str) -> Array:
    """Return the lower Cholesky factor, float64 (d, d), of a symmetric positive definite matrix."""
    values = finite(matrix, name)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}; expected a single d × d matrix.")
    values = symmetric(values, name)
    variance = np.diagonal(values)
    # The units are divided out first, so that they affect neither accuracy nor the outcome.
    unit = np.sqrt(np.where(variance > 0, variance, 1.0))
    try:
        return np.asarray(unit[:, None] * np.linalg.cholesky(values / unit[:, None] / unit[None]))
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name} must be positive definite. Check for zero variances, and for targets that "
            "are copies or sums of others."
        ) from None
