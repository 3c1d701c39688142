"""Helpers for losses whose gradient is not that of their value, without custom backward passes.

x − stop_gradient(x) is exactly 0 and has slope 1: adding it to a value changes only the gradient.
"""

from __future__ import annotations

from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.layouts._y_true import Targets

__all__ = ["gradient_only", "squared_error", "with_gradient_weight"]


def gradient_only(value: Tensor) -> Tensor:
    """Return exactly 0, with the gradient of `value`."""
    return value - ops.stop_gradient(value)


def with_gradient_weight(x: Tensor, weight: Tensor) -> Tensor:
    """Return x, with its gradient multiplied by `weight` (which is treated as a constant)."""
    return ops.stop_gradient(x) + ops.stop_gradient(weight) * gradient_only(x)


def squared_error(targets: Targets, mean: Tensor) -> Tensor:
    """Return ½ Σ ((y − μ)/t)² over the observed targets of each row (...), t the units of y."""
    u = targets.of_observed((targets.values - mean) / targets.unit)
    return 0.5 * ops.sum(u * u, axis=-1)
