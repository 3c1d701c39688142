"""The truth and the fallback: the structure's own arithmetic, in `keras.ops`."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_mvn.kernels.parameters.types import Emitted, Origin, Shrinkage
from keras_mvn.types import Tensor

__all__ = ["parameters"]


def parameters(
    covariance: Any, raw: Tensor, origin: Origin, shrinkage: Shrinkage | None
) -> Emitted:
    """As `kernels.parameters.parameters`, for any structure."""
    d = origin.mean.shape[0]
    mean = origin.mean + origin.stddev * raw[..., :d]
    scale, shape_params = covariance.constrain(raw[..., d:], d)
    scale, shape_params = covariance.relocate(
        scale, shape_params, origin.scale, origin.shape_params
    )
    y_pred = ops.concatenate([mean, scale, shape_params], axis=-1)
    return Emitted(y_pred, None if shrinkage is None else _penalty(raw[..., d:], shrinkage))


def _penalty(x: Tensor, shrinkage: Shrinkage) -> Tensor:
    distance = x - shrinkage.center
    return 0.5 * ops.sum(shrinkage.strengths * distance * distance, axis=-1)
