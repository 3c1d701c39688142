"""GPU kernels for JAX in Pallas: the two passes over y_pred, as in triton.py.

The programs, with their rows and columns, are the same, lowered by Pallas to Triton. The notes in
triton.py apply here, except that rows of N are not prefetched, because Pallas has no loop for that.
Each program gets whole arrays and loads what it needs with masks, so neither rows nor columns have
to fill blocks.

Complete rows only. Tested in Pallas' interpreter and lowered for GPUs on a machine without one; it
was neither run nor timed on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import CompilerParams, load, store

__all__ = ["backward", "forward"]

NUMBERS_OF_A_WARP = 256
"""Numbers of N that a warp holds, for all its rows: 8 per lane, leaving room for u, z and v."""

NUMBERS_WRITTEN = 1024
"""Numbers of the gradient that a program of the backward pass writes at once."""

WARPS_THAT_WRITE = 4


def _load(ref: Any, row: jax.Array, column: jax.Array, mask: jax.Array, other: float) -> jax.Array:
    """Load ref[row, column], with both broadcast; `other` where the mask is not set."""
    row, column = jnp.broadcast_arrays(row, column)
    return load(ref.at[row, column], mask=mask, other=other)


def _offset(i: Any) -> Any:
    """Return the offset of row i of N: i (i - 1)/2."""
    return i * (i - 1) >> 1


def _store(ref: Any, row: jax.Array, column: jax.Array, value: jax.Array, mask: jax.Array) -> None:
    row, column = jnp.broadcast_arrays(row, column)
    store(ref.at[row, column], value, mask=mask)


# --- products and substitutions with I + N, as in native/core/unit_lower.h -----------------------
#
# `row_of_n(i)` is row i of N: (rows, columns), 0 from the diagonal on. Lanes from the diagonal on
# are masked, not multiplied by 0, because 0 · ∞ is NaN.

RowOfN = Callable[[Any], jax.Array]


def _sum(x: jax.Array) -> jax.Array:
    """Sum over the columns: (rows, 1)."""
    return jnp.sum(x, axis=1)[:, None]


def _for(d: int, step: Callable[..., Any], start: Any) -> Any:
    """Run `step(i, ·)` for i = 1 … d - 1, in 32 bits even if JAX uses 64."""
    return lax.fori_loop(np.int32(1), np.int32(d), step, start)


def _solve(
    row_of_n: RowOfN, u: jax.Array, column: jax.Array, d: int, squares: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Return z with (I + N) z = u and, if requested, the diagonal of R, 1 + Σ_j N_ij²."""

    def step(i: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        z, *diagonal = carry
        n = row_of_n(i)
        z_i = _sum(jnp.where(column == i, u, jnp.where(column < i, -n * z, 0.0)))
        z = jnp.where(column == i, z_i, z)
        return z, *(jnp.where(column == i, 1.0 + _sum(n * n), x) for x in diagonal)

    start = (jnp.where(column == 0, u, 0.0), *([jnp.ones_like(u)] if squares else []))
    z, *diagonal = _for(d, step, start)
    return z, diagonal[0] if squares else None


def _solve_transposed(row_of_n: RowOfN, z: jax.Array, column: jax.Array, d: int) -> jax.Array:
    """Return v with (I + N)ᵀ v = z, row by row of N from the last, updating earlier entries."""

    def step(after: Any, v: jax.Array) -> jax.Array:
        j = d - after
        v_j = _sum(jnp.where(column == j, v, 0.0))
        return jnp.where(column < j, v - row_of_n(j) * v_j, v)

    return _for(d, step, z)


def _multiply(
    row_of_n: RowOfN, u: jax.Array, column: jax.Array, d: int
) -> tuple[jax.Array, jax.Array]:
    """Return z = (I + N) u and v = (I + N)ᵀ z, reading N only once."""

    def step(i: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        z, v = carry
        n = row_of_n(i)
        z_i = _sum(jnp.where(column == i, u, jnp.where(column < i, n * u, 0.0)))
        v = jnp.where(column == i, z_i, jnp.where(column < i, v + n * z_i, v))
        return jnp.where(column == i, z_i, z), v

    return _for(d, step, (u, jnp.where(column == 0, u, 0.0)))


# --- forward -------------------------------------------------------------------------------------


def _forward_kernel(
    y_pred: Any, y: Any, *outputs: Any, cholesky: bool, variance: bool, keeps: bool, tile: int
) -> None:
    rows, d = y.shape
    columns = pl.next_power_of_2(d)
    row = _rows_of_program(tile)
    column = jnp.arange(columns, dtype=jnp.int32)[None, :]
    here = row < rows
    inside = here & (column < d)

    def row_of_n(i: Any) -> jax.Array:
        return _load(y_pred, row, 2 * d + _offset(i) + column, here & (column < i), 0.0)

    scale = _load(y_pred, row, d + column, inside, 1.0)
    mean = _load(y_pred, row, column, inside, 0.0)
    u = (_load(y, row, column, inside, 0.0) - mean) / scale
    if cholesky:
        z, diagonal = _solve(row_of_n, u, column, d, variance)
        v = _solve_transposed(row_of_n, z, column, d) if keeps else None
    else:
        z, v = _multiply(row_of_n, u, column, d)
        diagonal = None
    squared_mahalanobis, half_log_det, *others = outputs
    store(squared_mahalanobis.at[row[:, 0]], jnp.sum(z * z, axis=1), mask=here[:, 0])
    store(half_log_det.at[row[:, 0]], jnp.sum(jnp.log(scale), axis=1), mask=here[:, 0])
    values = [scale * scale * diagonal] if diagonal is not None else []
    values += [z, v] if keeps else []
    for ref, value in zip(others, values, strict=True):
        _store(ref, row, column, value, inside)


def _rows_of_program(tile: int) -> jax.Array:
    """Return the row numbers of this program: (tile, 1)."""
    return pl.program_id(0) * tile + jnp.arange(tile, dtype=jnp.int32)[:, None]


def forward(
    y_pred: jax.Array,
    y: jax.Array,
    *,
    cholesky: bool,
    variance: bool,
    keeps: bool,
    interpret: bool = False,
) -> list[jax.Array]:
    """Return [squared_mahalanobis, half_log_det[, variance][, z, v]], like `kmvn_forward`.

    Args:
        y_pred: (rows, 2 d + k)
        y: (rows, d)
        cholesky: bool, Cholesky if True, else precision Cholesky.
        variance: bool, whether to return variances, (rows, d); only for Cholesky.
        keeps: bool, whether to return z and v, (rows, d).
        interpret: bool, whether to run in Pallas' interpreter.

    """
    rows, d = y.shape
    tile = max(NUMBERS_OF_A_WARP // pl.next_power_of_2(d), 1)
    vector, matrix = (jax.ShapeDtypeStruct(shape, y_pred.dtype) for shape in ((rows,), (rows, d)))
    results = [vector, vector, *[matrix] * (variance + 2 * keeps)]
    if rows == 0:
        return [jnp.zeros(x.shape, x.dtype) for x in results]
    kernel = functools.partial(
        _forward_kernel, cholesky=cholesky, variance=variance, keeps=keeps, tile=tile
    )
    call = pl.pallas_call(
        kernel,
        results,
        grid=(pl.cdiv(rows, tile),),
        # With more warps, each sum over the columns of a long row would wait for other warps.
        compiler_params=CompilerParams(num_warps=1),
        interpret=interpret,
        name="keras_mvn_elliptical",
    )
    return list(call(y_pred, y))


# --- backward ------------------------------------------------------------------------------------


def _row_and_column(place: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (i, j) of the entry of N at this place: place = i (i - 1)/2 + j."""
    i = ((1.0 + jnp.sqrt(8.0 * place.astype(jnp.float32) + 1.0)) * 0.5).astype(jnp.int32)
    i = jnp.where(_offset(i) > place, i - 1, i)  # corrects rounding of the root
    i = jnp.where(_offset(i + 1) <= place, i + 1, i)
    return i, place - _offset(i)


def _backward_kernel(
    y_pred: Any,
    y: Any,
    z: Any,
    v: Any,
    squared_mahalanobis_bar: Any,
    half_log_det_bar: Any,
    mean_bar: Any,
    y_pred_bar: Any,
    *,
    cholesky: bool,
    fixed_mean: bool,
    places: int,
    tile: int,
) -> None:
    rows, d = y.shape
    k = d * (d - 1) // 2
    row = _rows_of_program(tile)
    here = row < rows

    def of_row(ref: Any) -> jax.Array:
        return load(ref.at[row[:, 0]], mask=here[:, 0], other=0.0)[:, None]

    def standardized(column: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        scale = _load(y_pred, row, d + column, mask, 1.0)
        mean = _load(y_pred, row, column, mask, 0.0)
        return (_load(y, row, column, mask, 0.0) - mean) / scale, scale

    twice = 2.0 * of_row(squared_mahalanobis_bar)
    column = jnp.arange(pl.next_power_of_2(d), dtype=jnp.int32)[None, :]
    inside = here & (column < d)
    u, scale = standardized(column, inside)
    along = twice * _load(v, row, column, inside, 0.0)
    of_mean = _load(mean_bar, row, column, inside, 0.0)
    if not fixed_mean:
        of_mean -= along / scale
    _store(y_pred_bar, row, column, of_mean, inside)
    _store(y_pred_bar, row, d + column, (of_row(half_log_det_bar) - u * along) / scale, inside)

    # N_bar_ij = ∓2 squared_mahalanobis_bar left_i right_j
    def write(chunk: Any, _: None) -> None:
        place = chunk * places + jnp.arange(places, dtype=jnp.int32)[None, :]
        written = here & (place < k)
        i, j = _row_and_column(place)
        left = _load(v if cholesky else z, row, i, written, 0.0)
        right = -_load(z, row, j, written, 0.0) if cholesky else standardized(j, written)[0]
        _store(y_pred_bar, row, 2 * d + place, twice * left * right, written)

    lax.fori_loop(np.int32(0), np.int32(pl.cdiv(k, places)), write, None)


def backward(
    y_pred: jax.Array,
    y: jax.Array,
    z: jax.Array,
    v: jax.Array,
    squared_mahalanobis_bar: jax.Array,
    half_log_det_bar: jax.Array,
    mean_bar: jax.Array,
    *,
    cholesky: bool,
    fixed_mean: bool,
    interpret: bool = False,
) -> jax.Array:
    """Return y_pred_bar (rows, 2 d + k), like `kmvn_backward` of native/core/elliptical.h.

    Args:
        y_pred: (rows, 2 d + k)
        y: (rows, d)
        z: (rows, d), from the forward pass.
        v: (rows, d), from the forward pass.
        squared_mahalanobis_bar: (rows,)
        half_log_det_bar: (rows,)
        mean_bar: (rows, d), cotangent of the mean output.
        cholesky: bool, Cholesky if True, else precision Cholesky.
        fixed_mean: bool, whether squared_mahalanobis is treated as independent of the mean.
        interpret: bool, whether to run in Pallas' interpreter.

    """
    rows, d = y.shape
    if rows == 0:
        return jnp.zeros_like(y_pred)
    places = min(pl.next_power_of_2(max(d * (d - 1) // 2, 1)), NUMBERS_WRITTEN)
    tile = max(NUMBERS_WRITTEN // max(pl.next_power_of_2(d), places), 1)
    kernel = functools.partial(
        _backward_kernel, cholesky=cholesky, fixed_mean=fixed_mean, places=places, tile=tile
    )
    return pl.pallas_call(
        kernel,
        jax.ShapeDtypeStruct(y_pred.shape, y_pred.dtype),
        grid=(pl.cdiv(rows, tile),),
        compiler_params=CompilerParams(num_warps=WARPS_THAT_WRITE),
        interpret=interpret,
        name="keras_mvn_elliptical_backward",
    )(y_pred, y, z, v, squared_mahalanobis_bar, half_log_det_bar, mean_bar)
