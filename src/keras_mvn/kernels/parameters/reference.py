"""The truth and the fallback: the structure's own arithmetic, in `keras.ops`."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_mvn.kernels.parameters.types import Origin
from keras_mvn.types import Tensor

__all__ = ["parameters"]


def parameters(covariance: Any, raw: Tensor, origin: Origin) -> Tensor:
    """As `kernels.parameters.parameters`, for any structure."""
    d = origin.mean.shape[0]
    mean = origin.mean + origin.stddev * raw[..., :d]
    scale, shape_params = covariance.constrain(raw[..., d:], d)
    scale, shape_params = covariance.relocate(
        scale, shape_params, origin.scale, origin.shape_params
    )
    return ops.concatenate([mean, scale, shape_params], axis=-1)
