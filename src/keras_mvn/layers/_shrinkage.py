"""How strongly the head shrinks, and the mean of what that costs the rows."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_mvn._core.numeric import count_rows
from keras_mvn._core.types import Tensor

__all__ = ["auto_strength", "checked_shrinkage", "mean_of_rows"]

ROWS = 16.0
"""c of `shrinkage="auto"`, λ = c/n for scales, c k/n for k other numbers (docs/choosing.md)."""

LARGEST = 4.0
"""Of "auto": x moves the numbers so shrunk hardly at all."""


def checked_shrinkage(shrinkage: float | str | None) -> float | str | None:
    """The head's argument.

    Raises:
        ValueError: it is neither None, nor "auto", nor a number that is not negative.

    """
    if shrinkage is None or shrinkage == "auto":
        return shrinkage
    if isinstance(shrinkage, str) or not 0 <= shrinkage < np.inf:
        raise ValueError(f"shrinkage={shrinkage!r} must be None, 'auto' or a number ≥ 0.")
    return float(shrinkage)


def auto_strength(numbers: int, rows: int) -> float:
    """λ of "auto" for so many numbers, learnt from so many rows."""
    return min(LARGEST, ROWS * numbers / rows)


def mean_of_rows(penalty: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of a number per row (...) over the rows that a mask of this shape leaves; or 0."""
    if mask is None:
        count = count_rows(penalty[..., None])
    else:
        kept = ops.cast(mask, penalty.dtype)
        penalty, count = penalty * kept, ops.sum(kept)
    if isinstance(count, float):
        return ops.sum(penalty) / max(count, 1.0)
    # Keras' divide_no_nan turns float64 into float32 on PyTorch.
    return ops.sum(penalty) / (count + ops.cast(ops.equal(count, 0), penalty.dtype))
