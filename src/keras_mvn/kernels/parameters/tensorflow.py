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


def parameters(raw_mean: tf.Tensor, raw: tf.Tensor, origin: Origin, radius: float) -> tf.Tensor:
    """As `kernels.parameters.parameters`."""
    width = raw_mean.shape[-1] + raw.shape[-1]
    mean, stddev, scale, shape_params = (tf.cast(x, raw.dtype) for x in origin)
    settings = {"radius": radius, "threads": threads()}

    @tf.custom_gradient
    def with_gradient(raw_mean: tf.Tensor, raw: tf.Tensor) -> Any:
        def gradient(y_pred_bar: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            bars = operations().keras_mvn_parameters_backward(
                y_pred_bar, raw, stddev, scale, **settings
            )
            return tuple(
                tf.ensure_shape(bar, x.shape) for bar, x in zip(bars, (raw_mean, raw), strict=True)
            )

        y_pred = operations().keras_mvn_parameters(
            raw_mean, raw, mean, stddev, scale, shape_params, **settings
        )
        return tf.ensure_shape(y_pred, (raw.shape[0], width)), gradient

    rows = (tf.reshape(x, (-1, x.shape[-1])) for x in (raw_mean, raw))
    y_pred = with_gradient(*rows)
    if raw.shape.rank == 2:
        return y_pred
    whole = tf.reshape(y_pred, tf.concat([tf.shape(raw)[:-1], [width]], axis=0))
    return tf.ensure_shape(whole, (*raw.shape[:-1], width))
