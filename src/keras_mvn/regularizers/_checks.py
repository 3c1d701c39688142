"""Arguments of penalties, checked."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from keras_mvn._core.checks import finite, symmetric
from keras_mvn._core.types import Array

__all__ = ["at_least", "check_event_size", "factor_of"]


def at_least(value: Any, name: str, minimum: float) -> float:
    """A finite number, at least `minimum`."""
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if not minimum <= number < math.inf:
        raise ValueError(f"{name}={value!r} must be a number ≥ {minimum:g}.")
    return number


def check_event_size(expected: int, event_size: int, argument: str) -> None:
    """Whether a d × d argument of a penalty, or one of length d, fits the prediction's d."""
    if expected != event_size:
        raise ValueError(
            f"{argument} is for {expected} targets, the prediction has {event_size}. Give the "
            "penalty what belongs to the targets that the head predicts, in their order."
        )


def factor_of(matrix: Any, name: str) -> Array:
    """The lower Cholesky factor, float64 (d, d), of one symmetric positive definite matrix."""
    values = finite(matrix, name)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}; it must be one d × d matrix.")
    values = symmetric(values, name)
    variance = np.diagonal(values)
    # The units are divided out first, so that they neither cost accuracy nor decide.
    unit = np.sqrt(np.where(variance > 0, variance, 1.0))
    try:
        return np.asarray(unit[:, None] * np.linalg.cholesky(values / unit[:, None] / unit[None]))
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{name} must be positive definite. Check for zero variances and for targets that "
            "are sums or copies of others."
        ) from None
