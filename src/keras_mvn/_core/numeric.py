"""Common arithmetic for backend tensors and NumPy arrays, and analytic gradients.

The formulas of a structure are written once: in a loss they run on tensors of the active backend,
in `MultivariateNormal` on float64 NumPy arrays. `namespace` returns `keras.ops` or `numpy`, which
agree on the names used here. Use the operators `@`, `*` and `+`, not functions such as `ops.matmul`
and `ops.maximum`: on PyTorch these convert float64 to float32 (keras 3.15).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mvn._core import jax_substitution
from keras_mvn._core.tensorflow_loops import custom_gradients_fail, differentiable_by_operations
from keras_mvn._core.types import Tensor

__all__ = [
    "constant_like",
    "count_rows",
    "differentiable",
    "merge_last_axes",
    "namespace",
    "solve_lower",
    "split_last_axis",
    "static_gather",
]


def namespace(*tensors: Tensor) -> Any:
    """Return `numpy` if every argument is a NumPy array, `keras.ops` otherwise."""
    return np if all(isinstance(t, np.ndarray) for t in tensors) else keras.ops


def constant_like(array: np.ndarray, like: Tensor) -> Tensor:
    """Convert a NumPy array to a tensor with the dtype of `like`, if `like` is a tensor."""
    xp = namespace(like)
    return array if xp is np else xp.cast(array, like.dtype)


def differentiable(
    forward: Callable[..., Tensor],
    vjp: Callable[..., Tensor | tuple[Tensor, ...]],
    *inputs: Tensor,
) -> Tensor:
    """Return `forward(*inputs)` with the gradient `vjp(output_bar, output, *inputs)`.

    This is `keras.ops.custom_gradient` with one calling convention for the three backends. NumPy
    arrays have no gradient and are passed to `forward` directly. Only one output is possible,
    because of PyTorch.
    """
    if namespace(*inputs) is np:
        return forward(*inputs)
    if custom_gradients_fail():
        return differentiable_by_operations(forward, vjp, *inputs)

    @keras.ops.custom_gradient
    def with_gradient(*inputs: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        output = forward(*inputs)

        def gradient(*upstream_tensors: Tensor, upstream: Tensor | None = None) -> Any:
            output_bar = upstream_tensors[0] if upstream is None else upstream
            return vjp(output_bar, output, *inputs)

        return output, gradient

    return with_gradient(*inputs)


def static_gather(x: Tensor, index: np.ndarray, transposed_index: np.ndarray) -> Tensor:
    """Return `x[..., index]`, with 0 for index −1; the gradient gathers by `transposed_index`.

    Every entry of x is read at most once, so the adjoint is also a gather, whereas autodiff would
    build a scatter.
    """

    def gather(x: Tensor, index: np.ndarray) -> Tensor:
        xp = namespace(x)
        zero = xp.sum(x[..., :0], axis=-1, keepdims=True)  # a column of zeros, even where x is NaN
        padded = xp.concatenate([x, zero], axis=-1)
        return xp.take(padded, index % padded.shape[-1], axis=-1)

    return differentiable(
        lambda x: gather(x, index), lambda out_bar, _, x: gather(out_bar, transposed_index), x
    )


def count_rows(x: Tensor) -> float | Tensor:
    """Return the number of rows of x (..., d), as a divisor for tensors of its dtype."""
    count = math.prod(keras.ops.shape(x)[:-1])
    return float(count) if isinstance(count, int) else keras.ops.cast(count, x.dtype)


def merge_last_axes(x: Tensor) -> Tensor:
    """Reshape (..., m, n) to (..., m n), for batch axes of known or unknown length."""
    xp = namespace(x)
    return xp.reshape(x, (*xp.shape(x)[:-2], x.shape[-2] * x.shape[-1]))


def split_last_axis(x: Tensor, m: int, n: int) -> Tensor:
    """Reshape (..., m n) to (..., m, n), for batch axes of known or unknown length."""
    xp = namespace(x)
    return xp.reshape(x, (*xp.shape(x)[:-1], m, n))


def solve_lower(factor: Tensor, b: Tensor, *, transposed: bool = False) -> Tensor:
    """Solve `factor @ x = b` (or `factorᵀ @ x = b`), factor (..., d, d) lower, b (..., d, m).

    Only the lower triangle is read. NumPy has no batched triangular solve, so for arrays one
    substitution runs over the d rows for all matrices at once.
    """
    if namespace(factor, b) is not np:
        if keras.backend.backend() == "jax":
            return jax_substitution.solve_lower(factor, b, transposed=transposed)
        if not transposed:
            return keras.ops.solve_triangular(factor, b, lower=True)
        return keras.ops.solve_triangular(keras.ops.swapaxes(factor, -1, -2), b, lower=False)
    matrix = np.swapaxes(factor, -1, -2) if transposed else factor
    d = matrix.shape[-1]
    batch = np.broadcast_shapes(matrix.shape[:-2], b.shape[:-2])
    x = np.zeros((*batch, *b.shape[-2:]), np.result_type(factor, b))
    for i in reversed(range(d)) if transposed else range(d):
        known = slice(i + 1, d) if transposed else slice(0, i)
        row = matrix[..., i : i + 1, known] @ x[..., known, :]
        x[..., i, :] = (b[..., i, :] - row[..., 0, :]) / matrix[..., i, i, None]
    return x
