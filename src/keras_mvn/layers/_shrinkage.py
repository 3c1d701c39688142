"""The strength of the head's shrinkage, and the mean of its penalty over rows."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_mvn._core.numeric import count_rows
from keras_mvn._core.types import Tensor

__all__ = ["auto_strength", "checked_shrinkage", "mean_of_rows"]

ROWS = 16.0
"""c of `shrinkage="auto"`: λ = c/n for scales, c k/n for k other numbers (docs/choosing.md)."""

LARGEST = 4.0
"""Largest λ of "auto": x hardly moves numbers that are shrunk this much."""


def checked_shrinkage(shrinkage: float | str | None) -> float | str | None:
    """Check and return the head's argument `shrinkage`.

    Raises:
        ValueError: it is neither None, nor "auto", nor a number ≥ 0.

    """
    if shrinkage is None or shrinkage == "auto":
        return shrinkage
    if isinstance(shrinkage, str) or not 0 <= shrinkage < np.inf:
        raise ValueError(f"shrinkage={shrinkage!r} must be None, 'auto' or a number ≥ 0.")
    return float(shrinkage)


def auto_strength(numbers: int, rows: int) -> float:
    """Return λ of "auto", given how many numbers are shrunk and how many rows they learn from."""
    return min(LARGEST, ROWS * numbers / rows)


def mean_of_rows(penalty: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of a penalty per row (...) over the unmasked rows; 0 if there are none."""
    if mask is None:
        count = count_rows(penalty[..., None])
    else:
        kept = ops.cast(mask, penalty.dtype)
        penalty, count = penalty * kept, ops.sum(kept)
    if isinstance(count, float):
        return ops.sum(penalty) / max(count, 1.0)
    # Keras' divide_no_nan turns float64 into float32 on PyTorch.
    return ops.sum(penalty) / (count + ops.cast(ops.equal(count, 0), penalty.dtype))
