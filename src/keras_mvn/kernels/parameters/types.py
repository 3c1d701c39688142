"""What goes into the operation and comes out of it, on every path."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn._core.types import Tensor

__all__ = ["Emitted", "Origin", "without_penalty"]


class Origin(NamedTuple):
    """What raw zeros stand for: what `MultivariateNormalHead.adapt` found, in the units of y."""

    mean: Tensor
    """(d,)"""
    stddev: Tensor
    """(d,), the unit of the mean."""
    scale: Tensor
    """(d,)"""
    shape_params: Tensor
    """(k,)"""


class Emitted(NamedTuple):
    """What the head makes of each row's raw numbers."""

    y_pred: Tensor
    """(..., 2 d + k)"""
    penalty: Tensor | None
    """(...), what shrinkage asks of the row; None without strengths."""


def without_penalty(
    summed: Tensor, raw: Tensor, strengths: Tensor, penalty_bar: Tensor
) -> tuple[Tensor, Tensor]:
    """The bias' gradient, in two parts that stand side by side: of the mean, and of all others.

    The penalty knows no bias: of the sum of raw_bar over the rows, what it added is taken away.

    Args:
        summed: (2 d + k,), raw_bar's.
        raw: (rows, 2 d + k), without the bias.
        strengths: (d + k,).
        penalty_bar: (rows,).

    """
    d = raw.shape[1] - strengths.shape[0]
    added = strengths * (penalty_bar[None, :] @ raw[:, d:])[0]
    return summed[:d], summed[d:] - added
