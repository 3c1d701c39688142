"""What goes into the operation on every path."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn.types import Tensor

__all__ = ["Origin"]


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
