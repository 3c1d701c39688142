"""The degrees of freedom that a head writes: none, a fixed number, one trained, or one per row."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.layouts import degrees_of_freedom_from

__all__ = [
    "CONSTANT",
    "LARGEST",
    "PER_ROW",
    "bounded",
    "checked",
    "constant",
    "fixed",
    "in_numbers",
    "start",
]

CONSTANT, PER_ROW = "constant", "per_row"

LARGEST = 1e4
"""Upper bound of ν per row: practically a normal, of which no row has to be told from another."""

_START = 10.0
"""ν before training, where it is trained."""


def checked(degrees_of_freedom: Any) -> float | str | None:
    """Check the head's argument.

    Raises:
        ValueError: it is neither None, a number above 2, "constant" nor "per_row".

    """
    if degrees_of_freedom in (None, CONSTANT, PER_ROW):
        return degrees_of_freedom if degrees_of_freedom is None else str(degrees_of_freedom)
    number = isinstance(degrees_of_freedom, numbers.Real) and not isinstance(
        degrees_of_freedom, bool
    )
    if not number or not 2.0 < float(degrees_of_freedom) < float("inf"):
        raise ValueError(
            f"degrees_of_freedom={degrees_of_freedom!r} must be None (a normal), a number above 2, "
            "below which there is no covariance, 'constant' (one trained number), or 'per_row'."
        )
    return float(degrees_of_freedom)


def start(degrees_of_freedom: float | str | None) -> float:
    """ν before training; infinite for a normal."""
    if degrees_of_freedom is None:
        return float("inf")
    return degrees_of_freedom if isinstance(degrees_of_freedom, float) else _START


def in_numbers(degrees_of_freedom: float | str | None, raw: Any) -> float:
    """ν as it is now; infinite for a normal, NaN if it depends on the row.

    Args:
        degrees_of_freedom: the head's argument.
        raw: its variable of one raw number, if there is one.

    """
    if degrees_of_freedom == PER_ROW:
        return float("nan")
    if raw is None:
        return start(degrees_of_freedom)
    return float(degrees_of_freedom_from(np.asarray(ops.convert_to_numpy(raw), np.float64))[0])


def fixed(like: Tensor, degrees_of_freedom: float) -> Tensor:
    """Return a column of a fixed ν, (..., 1), for a tensor (..., 1)."""
    return ops.ones_like(like) * degrees_of_freedom


def constant(like: Tensor, raw: Tensor) -> Tensor:
    """Return a column of the ν of one raw number."""
    return degrees_of_freedom_from(ops.ones_like(like) * raw)


def bounded(raw: Tensor) -> Tensor:
    """Return ν in (2, `LARGEST`) of raw numbers (..., 1): 10 at raw = 0, log-linear around it.

    ν = 2 + (ν_max − 2)/(1 + c exp(−raw)).
    """
    span = LARGEST - 2.0
    odds = span / (_START - 2.0) - 1.0
    return 2.0 + span / (1.0 + odds * ops.exp(-raw))
