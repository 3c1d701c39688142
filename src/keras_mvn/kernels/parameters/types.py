"""What goes into the operation and comes out of it, on every path."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn.types import Tensor

__all__ = ["Emitted", "Origin", "Shrinkage", "center_gradient"]


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


class Shrinkage(NamedTuple):
    """What pulls the raw numbers of scale and shape."""

    center: Tensor
    """(m,), where to."""
    strengths: Tensor
    """(m,), how strongly."""


class Emitted(NamedTuple):
    """What the head makes of each row's raw numbers."""

    y_pred: Tensor
    """(..., 2 d + k)"""
    penalty: Tensor | None
    """(...), ½ Σⱼ strengthsⱼ (rawⱼ − centerⱼ)²; None without shrinkage."""


def center_gradient(
    raw: Tensor, penalty_bar: Tensor, total: Tensor, shrinkage: Shrinkage
) -> Tensor:
    """−λ Σ penalty_bar (raw − center) over the rows, in any backend's own spelling.

    Args:
        raw: (rows, d + m).
        penalty_bar: (rows,).
        total: (), its sum.
        shrinkage: of m numbers, or of 0.

    """
    x = raw[:, raw.shape[1] - shrinkage.center.shape[0] :]
    return shrinkage.strengths * (total * shrinkage.center - (penalty_bar[None, :] @ x)[0])
