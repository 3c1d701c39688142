"""Triangular systems on JAX, by substitution over all rows of a batch at once.

From version 0.10, jaxlib's LAPACK calls hand a batch to XLA's threads in parts and wait for them.
Where as many systems as there are threads can be solved side by side, all of them wait and nobody
works: a program of three such calls stopped for good in 3 of 100 runs on two cores (jaxlib 0.10.2).
Substitution has no call that waits, and is as fast: between 0.1 and 1.3 times the time of LAPACK's
calls for d from 8 to 128 (see the comparison in benchmarks/triangular_solves.py).
"""

from __future__ import annotations

from typing import Any

from keras_mvn._core.optional import require
from keras_mvn._core.types import Tensor

__all__ = ["solve_lower"]

_UNROLLED = 8
"""Largest d whose steps are written one after the other, which is faster and takes longer to
compile."""


def solve_lower(factor: Tensor, b: Tensor, *, transposed: bool) -> Tensor:
    """Solve `factor @ x = b` (or `factorᵀ @ x = b`), with derivatives of every order.

    On GPUs and TPUs this is `jax.lax.linalg.triangular_solve`.

    Args:
        factor: (..., d, d), of which only the lower triangle is read.
        b: (..., d, m).
        transposed: whether the upper triangular system is meant.

    """
    jax = require("jax", "Keras' backend")
    jnp = jax.numpy
    batch = jnp.broadcast_shapes(factor.shape[:-2], b.shape[:-2])
    dtype = jnp.result_type(factor, b)
    factor = jnp.broadcast_to(jnp.tril(factor), (*batch, *factor.shape[-2:])).astype(dtype)
    b = jnp.broadcast_to(b, (*batch, *b.shape[-2:])).astype(dtype)

    def solver(transposed: bool) -> Any:
        return lambda _, right: jax.lax.platform_dependent(
            factor,
            right,
            cpu=lambda factor, right: _substitute(factor, right, transposed),
            default=lambda factor, right: jax.lax.linalg.triangular_solve(
                factor, right, left_side=True, lower=True, transpose_a=transposed
            ),
        )

    matrix = jnp.swapaxes(factor, -1, -2) if transposed else factor
    return jax.lax.custom_linear_solve(
        lambda x: jnp.matmul(matrix, x, precision="highest"),
        b,
        solver(transposed),
        solver(not transposed),
    )


def _substitute(factor: Tensor, b: Tensor, transposed: bool) -> Tensor:
    jnp = require("jax.numpy", "Keras' backend")
    if transposed:  # with rows and columns in reverse order, Lᵀ is lower triangular
        factor, b = jnp.swapaxes(factor, -1, -2)[..., ::-1, ::-1], b[..., ::-1, :]
    x = (_by_columns if factor.shape[-1] <= _UNROLLED else _by_rows)(factor, b)
    return x[..., ::-1, :] if transposed else x


def _by_columns(factor: Tensor, b: Tensor) -> Tensor:
    """Take what each unknown contributes from all later equations at once."""
    jnp = require("jax.numpy", "Keras' backend")
    rows = []
    for i in range(factor.shape[-1]):
        rows.append(b[..., :1, :] / factor[..., i : i + 1, i : i + 1])
        b = b[..., 1:, :] - factor[..., i + 1 :, i : i + 1] * rows[-1]
    return jnp.concatenate(rows, -2) if rows else b


def _by_rows(factor: Tensor, b: Tensor) -> Tensor:
    """Solve one equation after the other, in a loop that is compiled once."""
    jax = require("jax", "Keras' backend")
    take, put = jax.lax.dynamic_slice_in_dim, jax.lax.dynamic_update_slice_in_dim

    def step(i: Any, x: Tensor) -> Tensor:  # what isn't known yet is 0 in x
        row = take(factor, i, 1, -2)
        unknown = (take(b, i, 1, -2) - row @ x) / take(row, i, 1, -1)
        return put(x, unknown, i, -2)

    return jax.lax.fori_loop(0, factor.shape[-1], step, jax.numpy.zeros_like(b))
