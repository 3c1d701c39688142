"""TensorFlow on the CPU: the native kernels as operations of a library that registers itself."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_mvn.kernels import _native
from keras_mvn.kernels._tensorflow import operations, threads, unsupported
from keras_mvn.kernels.parameters.types import Emitted, Origin, Shrinkage, center_gradient

__all__ = ["made_by", "parameters", "supports"]


def supports(raw: tf.Tensor) -> str | None:
    """Why there is no fast path for this tensor; None if there is."""
    return unsupported(raw)


def made_by(raw: tf.Tensor) -> str:
    """What the fast path is made of."""
    return _native.library().made_by


def parameters(
    raw: tf.Tensor, origin: Origin, radius: float, shrinkage: Shrinkage | None
) -> Emitted:
    """As `kernels.parameters.parameters`."""
    mean, stddev, scale, shape_params = (tf.cast(x, raw.dtype) for x in origin)
    nothing = tf.zeros((0,), raw.dtype)
    shrinks = (tf.cast(x, raw.dtype) for x in shrinkage or (nothing, nothing))
    settings = {"radius": radius, "threads": threads()}

    @tf.custom_gradient
    def with_gradient(raw: tf.Tensor, center: tf.Tensor, strengths: tf.Tensor) -> Any:
        def gradient(y_pred_bar: tf.Tensor, penalty_bar: tf.Tensor) -> tuple[tf.Tensor, ...]:
            raw_bar = operations().keras_mvn_parameters_backward(
                y_pred_bar, raw, stddev, scale, penalty_bar, center, strengths, **settings
            )
            total = tf.reduce_sum(penalty_bar)
            center_bar = center_gradient(raw, penalty_bar, total, Shrinkage(center, strengths))
            return raw_bar, center_bar, tf.zeros_like(strengths)  # which are no weights

        emitted = operations().keras_mvn_parameters(
            raw, mean, stddev, scale, shape_params, center, strengths, **settings
        )
        return tuple(emitted), gradient

    batch = raw.shape[:-1]
    rows = raw if raw.shape.rank == 2 else tf.reshape(raw, (-1, raw.shape[-1]))
    y_pred, penalty = with_gradient(rows, *shrinks)
    if raw.shape.rank != 2:
        y_pred = tf.ensure_shape(tf.reshape(y_pred, tf.shape(raw)), raw.shape)
        penalty = tf.ensure_shape(tf.reshape(penalty, tf.shape(raw)[:-1]), batch)
    return Emitted(y_pred, penalty if shrinkage else None)
