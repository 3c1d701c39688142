"""The order statistic behind every conformal region."""

from __future__ import annotations

import math
import warnings

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["conformal_quantile", "rows_needed", "too_few_rows", "warn_if_unbounded"]

_ROUNDING = 1e-9  # allows for the rounding error of an integer (n + 1) level in float64


def conformal_quantile(scores: Array, level: float) -> float:
    """Return the ⌈(n + 1) level⌉-th smallest of n scores; infinity if that rank exceeds n.

    Another score, exchangeable with these, is at most this value with probability ≥ level.

    >>> conformal_quantile(np.arange(1.0, 10.0), 0.9), conformal_quantile(np.arange(1.0, 9.0), 0.9)
    (9.0, inf)
    """
    rank = math.ceil((len(scores) + 1) * level - _ROUNDING)
    if rank > len(scores):
        return math.inf
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank > 0 else 0.0


def rows_needed(level: float) -> int:
    """Return the smallest n for which the quantile is finite."""
    return max(1, math.ceil(level / (1.0 - level) - _ROUNDING))


def too_few_rows(who: str, rows: int, level: float) -> ValueError:
    """Return the error that so few rows cannot say what factor gives this coverage."""
    return ValueError(
        f"{who}: {rows} calibration rows are too few for a coverage of level={level}; at least "
        f"{rows_needed(level)} are needed. Use more rows, a lower level, or "
        "objective='likelihood'."
    )


def warn_if_unbounded(squared_radius: float, rows: int, level: float, who: str) -> None:
    """Warn if there are too few rows for a bounded region."""
    if math.isinf(squared_radius):
        warnings.warn(
            f"{who}: {rows} calibration rows are too few for a bounded region at level={level}; "
            f"at least {rows_needed(level)} are needed. The region is unbounded.",
            stacklevel=4,
        )
