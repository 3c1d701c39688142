"""TensorFlow on the CPU: the native kernels as operations of a library that registers itself."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_mvn.kernels import _native
from keras_mvn.kernels._tensorflow import operations, threads, unsupported
from keras_mvn.kernels.parameters.types import Origin

__all__ = ["made_by", "parameters", "supports"]


def supports(raw: tf.Tensor) -> str | None:
    """Why there is no fast path for this tensor; None if there is."""
    return unsupported(raw)


def made_by(raw: tf.Tensor) -> str:
    """What the fast path is made of."""
    return _native.library().made_by


def parameters(raw: tf.Tensor, origin: Origin, radius: float) -> tf.Tensor:
    """As `kernels.parameters.parameters`."""
    mean, stddev, scale, shape_params = (tf.cast(x, raw.dtype) for x in origin)
    settings = {"radius": radius, "threads": threads()}

    @tf.custom_gradient
    def with_gradient(raw: tf.Tensor) -> Any:
        def gradient(y_pred_bar: tf.Tensor) -> tf.Tensor:
            return operations().keras_mvn_parameters_backward(
                y_pred_bar, raw, stddev, scale, **settings
            )

        y_pred = operations().keras_mvn_parameters(
            raw, mean, stddev, scale, shape_params, **settings
        )
        return y_pred, gradient

    if raw.shape.rank == 2:
        return with_gradient(raw)
    y_pred = with_gradient(tf.reshape(raw, (-1, raw.shape[-1])))
    return tf.ensure_shape(tf.reshape(y_pred, tf.shape(raw)), raw.shape)
