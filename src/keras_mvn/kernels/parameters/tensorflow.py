"""Fast path for TensorFlow on the CPU: the native kernels as registered operations."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_mvn.kernels import _native
from keras_mvn.kernels._tensorflow import operations, threads, unsupported
from keras_mvn.kernels.parameters.types import Emitted, Origin, without_penalty

__all__ = ["made_by", "parameters", "supports"]


def supports(raw: tf.Tensor) -> str | None:
    """Return the reason why there is no fast path for this tensor; None if there is one."""
    return unsupported(raw)


def made_by(raw: tf.Tensor) -> str:
    """Return the implementation of the fast path."""
    return _native.library().made_by


def parameters(
    raw: tf.Tensor,
    origin: Origin,
    radius: float,
    bias: tf.Tensor | None,
    strengths: tf.Tensor | None,
) -> Emitted:
    """Compute `kernels.parameters.parameters` on the fast path."""
    width = raw.shape[-1]
    mean, stddev, scale, shape_params, floor = (tf.cast(x, raw.dtype) for x in origin)
    bias = tf.zeros((width,), raw.dtype) if bias is None else tf.cast(bias, raw.dtype)
    strong = tf.zeros((0,), raw.dtype) if strengths is None else tf.cast(strengths, raw.dtype)
    settings = {"radius": radius, "threads": threads()}

    @tf.custom_gradient
    def with_gradient(raw: tf.Tensor, bias: tf.Tensor) -> Any:
        def gradient(y_pred_bar: tf.Tensor, penalty_bar: tf.Tensor) -> tuple[tf.Tensor, ...]:
            raw_bar = operations().keras_mvn_parameters_backward(
                raw, bias, stddev, scale, strong, y_pred_bar, penalty_bar, **settings
            )
            summed = tf.reduce_sum(raw_bar, axis=0)
            if strengths is not None:
                summed = tf.concat(without_penalty(summed, raw, strong, penalty_bar), axis=0)
            return raw_bar, summed

        emitted = operations().keras_mvn_parameters(
            raw, bias, mean, stddev, scale, shape_params, floor, strong, **settings
        )
        return tuple(emitted), gradient

    rows = raw if raw.shape.rank == 2 else tf.reshape(raw, (-1, width))
    y_pred, penalty = with_gradient(rows, bias)
    if raw.shape.rank != 2:
        y_pred = tf.ensure_shape(tf.reshape(y_pred, tf.shape(raw)), raw.shape)
        penalty = tf.ensure_shape(tf.reshape(penalty, tf.shape(raw)[:-1]), raw.shape[:-1])
    return Emitted(y_pred, None if strengths is None else penalty)
