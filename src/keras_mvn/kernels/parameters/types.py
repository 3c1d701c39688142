"""Inputs and outputs of the operation, shared by all paths."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn._core.types import Tensor

__all__ = ["Emitted", "Origin", "without_penalty"]


class Origin(NamedTuple):
    """Parameters that raw zeros represent, set by `MultivariateNormalHead.adapt`, in units of y."""

    mean: Tensor
    """(d,)"""
    stddev: Tensor
    """(d,), the unit of raw means."""
    scale: Tensor
    """(d,), without the floor."""
    shape_params: Tensor
    """(k,)"""
    floor: Tensor
    """(d,), added to the scales, which stay above it."""


class Emitted(NamedTuple):
    """Output of the operation for each row's raw numbers."""

    y_pred: Tensor
    """(..., 2 d + k)"""
    penalty: Tensor | None
    """(...), the shrinkage penalty of each row; None without strengths."""


def without_penalty(
    summed: Tensor, raw: Tensor, strengths: Tensor, penalty_bar: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the bias, in two parts to concatenate: of the mean, and the rest.

    The penalty does not depend on the bias, so its contribution is subtracted from the sum of
    raw_bar over the rows.

    Args:
        summed: (2 d + k,), sum of raw_bar over the rows.
        raw: (rows, 2 d + k), without the bias.
        strengths: (d + k,), strengths of the shrinkage.
        penalty_bar: (rows,), cotangent of the penalty.

    """
    d = raw.shape[1] - strengths.shape[0]
    added = strengths * (penalty_bar[None, :] @ raw[:, d:])[0]
    return summed[:d], summed[d:] - added
