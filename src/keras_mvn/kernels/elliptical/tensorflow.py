"""TensorFlow on the CPU: the native kernels as operations of a library that registers itself."""

from __future__ import annotations

import functools
import os
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # it has no public name

from keras_mvn._rows import Targets
from keras_mvn.kernels import _native
from keras_mvn.kernels.elliptical.types import STRUCTURES, Elliptical, Request

__all__ = ["elliptical", "supports"]


def supports(packed: tf.Tensor) -> str | None:
    """Why there is no fast path for this tensor; None if there is."""
    if packed.dtype not in (tf.float32, tf.float64):
        return f"the tensors are {packed.dtype.name}."
    if packed.shape.rank is None:
        return "the tensors have an unknown number of axes."
    if _inside_xla():
        return "XLA compiles this function (jit_compile=True), and it takes no operations of ours."
    if _accelerators():
        return "there is a GPU, and the operation runs on the CPU."
    return _native.library().reason


def _inside_xla() -> bool:
    return not tf.executing_eagerly() and bool(
        control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    )


@functools.cache
def _accelerators() -> bool:
    return bool(tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU"))


@functools.cache
def _operations() -> Any:
    return tf.load_op_library(str(_native.tensorflow_library()))


def elliptical(request: Request, packed: tf.Tensor, targets: Targets) -> Elliptical:
    """As `kernels.elliptical.elliptical`."""
    batch = tf.shape(packed)[:-1]
    d = targets.values.shape[-1]
    rows = [packed, targets.values, *([] if targets.observed is None else [targets.observed])]
    outputs = _differentiable(request, *(tf.reshape(x, (-1, x.shape[-1])) for x in rows))

    def restored(x: tf.Tensor, *last: int) -> tf.Tensor:
        whole = tf.reshape(x, tf.concat([batch, last], axis=0))
        return tf.ensure_shape(whole, [*packed.shape[:-1], *last])

    mean, mahalanobis, log_scale, *variance = outputs
    return Elliptical(
        restored(mean, d),
        restored(mahalanobis),
        restored(log_scale),
        restored(variance[0], d) if variance else None,
    )


def _differentiable(
    request: Request, y_pred: tf.Tensor, y: tf.Tensor, *observed: tf.Tensor
) -> list[tf.Tensor]:
    """[mean, mahalanobis, log_scale[, variance]]."""
    d = y.shape[-1]
    structure, threads = STRUCTURES[request.structure or ""], _threads()

    @tf.custom_gradient
    def with_gradient(y_pred: tf.Tensor, y: tf.Tensor) -> Any:
        mahalanobis, log_scale, z, v, variances = _operations().keras_mvn_elliptical(
            y_pred,
            y,
            list(observed),
            structure=structure,
            variance=int(request.variance_in_kernel),
            threads=threads,
        )

        def gradient(*bars: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            mean_bar, mahalanobis_bar, log_scale_bar = bars[:3]
            y_pred_bar = _operations().keras_mvn_elliptical_backward(
                y_pred,
                y,
                z,
                v,
                mahalanobis_bar,
                log_scale_bar,
                mean_bar,
                list(observed),
                structure=structure,
                fixed_mean=int(request.fixed_mean),
                threads=threads,
            )
            return y_pred_bar, 2.0 * mahalanobis_bar[:, None] * v / y_pred[:, d : 2 * d]

        outputs = [y_pred[:, :d], mahalanobis, log_scale]
        return [*outputs, *variances], gradient

    return list(with_gradient(y_pred, y))


def _threads() -> int:
    """As many as TensorFlow's own operations take."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
