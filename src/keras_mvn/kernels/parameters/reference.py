"""Reference in `keras.ops`: the structure's own arithmetic defines the result."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.kernels.parameters.types import Emitted, Origin

__all__ = ["parameters"]


def parameters(
    covariance: Any, raw: Tensor, origin: Origin, bias: Tensor | None, strengths: Tensor | None
) -> Emitted:
    """Compute `kernels.parameters.parameters` for any structure."""
    d = origin.mean.shape[0]
    penalty = None
    if strengths is not None:
        penalty = 0.5 * ops.sum(strengths * raw[..., d:] * raw[..., d:], axis=-1)
    x = raw if bias is None else raw + bias
    mean = origin.mean + origin.stddev * x[..., :d]
    scale, shape_params = covariance.constrain(x[..., d:], d)
    scale, shape_params = covariance.relocate(
        scale, shape_params, origin.scale, origin.shape_params
    )
    scale = origin.floor + scale
    return Emitted(ops.concatenate([mean, scale, shape_params], axis=-1), penalty)
