"""Values and gradients on whichever backend is active, as NumPy arrays."""

import contextlib

import keras
import numpy as np

EPSILON = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}


@contextlib.contextmanager
def precision(dtype):
    """Make the backend compute in this dtype where it is asked to."""
    if keras.backend.backend() != "jax" or dtype != "float64":
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)


def tensor(array, dtype="float32"):
    return keras.ops.convert_to_tensor(np.asarray(array), dtype=dtype)


def numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def value_and_gradients(function, *arrays, dtype="float32"):
    """function(*tensors) → scalar; its value and its gradient by every argument.

    Compiled on JAX, as in training: operation by operation it would compile every one of them.
    """
    tensors = [tensor(a, dtype) for a in arrays]
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        of = jax.value_and_grad(function, argnums=tuple(range(len(arrays))))
        value, gradients = jax.jit(of)(*tensors)
    elif backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        gradients = tape.gradient(
            value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
    else:
        import torch

        tensors = [t.detach().requires_grad_(True) for t in tensors]
        value = function(*tensors)
        gradients = torch.autograd.grad(value, tensors, allow_unused=True)
        gradients = [
            torch.zeros_like(t) if g is None else g for g, t in zip(gradients, tensors, strict=True)
        ]
    return numpy(value), [numpy(g) for g in gradients]


def rows_and_gradient(function, array, dtype="float32"):
    """function(tensor) → (n,); its values and the gradient of their sum, compiled on JAX."""
    if keras.backend.backend() == "jax":
        import jax

        def total(x):
            rows = function(x)
            return keras.ops.sum(rows), rows

        (_, rows), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(tensor(array, dtype))
        return numpy(rows), numpy(gradient)
    rows = []

    def total(x):
        rows.append(function(x))
        return keras.ops.sum(rows[0])

    _, (gradient,) = value_and_gradients(total, array, dtype=dtype)
    values = rows[0].detach() if hasattr(rows[0], "detach") else rows[0]
    return numpy(values), gradient


def compiled(function):
    """The same function, compiled on JAX, where single operations are slow to start."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)
