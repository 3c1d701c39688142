"""Access to the native operations for TensorFlow, from a library that registers itself."""

from __future__ import annotations

import functools
import os
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # has no public name

from keras_mvn._core.tensorflow_loops import inside_vectorized_map
from keras_mvn.kernels import _native

__all__ = ["operations", "threads", "unsupported"]


def unsupported(tensor: tf.Tensor) -> str | None:
    """Return the reason why there is no fast path for this tensor; None if there is one."""
    if tensor.dtype not in (tf.float32, tf.float64):
        return f"the tensors are {tensor.dtype.name}."
    if tensor.shape.rank is None:
        return "the tensors have an unknown number of axes."
    if _inside_xla():
        return "XLA compiles this function (jit_compile=True), which excludes custom operations."
    if inside_vectorized_map():
        return "tf.vectorized_map would run the operation row by row, and lose its gradient."
    if _accelerators():
        return "there is a GPU, but the operation only runs on the CPU."
    return _native.library().reason


def _inside_xla() -> bool:
    return not tf.executing_eagerly() and bool(
        control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    )


@functools.cache
def _accelerators() -> bool:
    return bool(tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU"))


@functools.cache
def operations() -> Any:
    """Load the operations, and return a module with them as functions."""
    return _native.tensorflow_operations(tf.load_op_library)


def threads() -> int:
    """Return the number of threads that TensorFlow's own operations use."""
    return tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count() or 1
