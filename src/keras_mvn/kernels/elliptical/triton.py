"""GPU kernels for PyTorch in Triton, with the formulas of native/core/elliptical_kernel.h.

On the CPU, a vector has one row per lane. Here, the lanes of a warp are columns of N, which are
adjacent in memory, so that loads coalesce. In the forward pass, a program is one warp with a few
rows, whose u, z and v stay in registers; it reads N row by row, with one sum over the lanes for
each row. Back substitution reads N a second time, from the caches. The backward pass has no sums:
every number of the gradient is a product, which is written directly.

Complete rows only. Tested in Triton's interpreter and compiled for GPUs on a machine without one;
it was neither run nor timed on a GPU.
"""

# Triton reads the annotations of kernels, and only accepts its own.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]

from keras_mvn.kernels.elliptical.types import STRUCTURES

__all__ = ["backward", "forward"]

NUMBERS_OF_A_WARP = 256
"""Numbers of N that a warp holds, for all its rows: 8 per lane, leaving room for u, z and v."""

STAGES = tl.constexpr(2)
"""Rows of N that a program handles at a time: one is processed, the others are prefetched."""

NUMBERS_WRITTEN = 1024
"""Numbers of the gradient that a program of the backward pass writes at once."""

WARPS_THAT_WRITE = 4


# --- N, strictly lower triangular, row by row ----------------------------------------------------


@triton.jit
def _row(shape, i, column, here):
    """Load row i of N: (rows, columns), 0 from the diagonal on."""
    return tl.load(shape + i * (i - 1) // 2 + column, mask=here & (column < i), other=0.0)


@triton.jit
def _row_and_column(place):
    """Return (i, j) of the entry of N at this place: place = i (i - 1)/2 + j."""
    i = ((1.0 + tl.sqrt(8.0 * place.to(tl.float32) + 1.0)) * 0.5).to(tl.int32)
    i = tl.where(i * (i - 1) // 2 > place, i - 1, i)  # corrects rounding of the root
    i = tl.where(i * (i + 1) // 2 <= place, i + 1, i)
    return i, place - i * (i - 1) // 2


# --- products and substitutions with I + N, as in native/core/unit_lower.h -----------------------
#
# Lanes from the diagonal on are masked, not multiplied by 0, because 0 · ∞ is NaN.


@triton.jit
def _sum(x):
    """Sum over the columns: (rows, 1)."""
    return tl.sum(x, axis=1)[:, None]


@triton.jit
def _solve(shape, u, column, here, d: tl.constexpr, squares: tl.constexpr):
    """Return z with (I + N) z = u and, if requested, the diagonal of R, 1 + Σ_j N_ij²."""
    z = tl.where(column == 0, u, 0.0)
    diagonal = tl.full(u.shape, 1.0, u.dtype)
    for i in tl.range(1, d, num_stages=STAGES):
        n = _row(shape, i, column, here)
        z_i = _sum(tl.where(column == i, u, tl.where(column < i, -n * z, 0.0)))
        z = tl.where(column == i, z_i, z)
        if squares:
            diagonal = tl.where(column == i, 1.0 + _sum(n * n), diagonal)
    return z, diagonal


@triton.jit
def _solve_transposed(shape, z, column, here, d: tl.constexpr):
    """Return v with (I + N)ᵀ v = z, row by row of N from the last, updating earlier entries."""
    v = z
    for after in tl.range(1, d, num_stages=STAGES):
        j = d - after
        n = _row(shape, j, column, here)
        v_j = _sum(tl.where(column == j, v, 0.0))
        v = tl.where(column < j, v - n * v_j, v)
    return v


@triton.jit
def _multiply(shape, u, column, here, d: tl.constexpr):
    """Return z = (I + N) u and v = (I + N)ᵀ z, reading N only once."""
    z = u
    v = tl.where(column == 0, u, 0.0)
    for i in tl.range(1, d, num_stages=STAGES):
        n = _row(shape, i, column, here)
        z_i = _sum(tl.where(column == i, u, tl.where(column < i, n * u, 0.0)))
        z = tl.where(column == i, z_i, z)
        v = tl.where(column == i, z_i, tl.where(column < i, v + n * z_i, v))
    return z, v


# --- forward -------------------------------------------------------------------------------------


@triton.jit
def _forward_kernel(
    y_pred,
    y,
    squared_mahalanobis,
    half_log_det,
    variance,
    z_to,
    v_to,
    rows,
    stride,
    cholesky: tl.constexpr,
    d: tl.constexpr,
    columns: tl.constexpr,
    tile: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    here = (row < rows)[:, None]
    column = tl.arange(0, columns)[None, :]
    inside = here & (column < d)
    of_row = row[:, None] * d + column  # in arrays with d columns
    packed = y_pred + row[:, None] * stride
    scale = tl.load(packed + d + column, mask=inside, other=1.0)
    mean = tl.load(packed + column, mask=inside, other=0.0)
    u = (tl.load(y + of_row, mask=inside, other=0.0) - mean) / scale
    shape = packed + 2 * d
    if cholesky:
        z, diagonal = _solve(shape, u, column, here, d, variance is not None)
        v = _solve_transposed(shape, z, column, here, d)
        if variance is not None:
            tl.store(variance + of_row, scale * scale * diagonal, mask=inside)
    else:
        z, v = _multiply(shape, u, column, here, d)
    tl.store(squared_mahalanobis + row, tl.sum(z * z, axis=1), mask=row < rows)
    tl.store(half_log_det + row, tl.sum(tl.log(scale), axis=1), mask=row < rows)
    tl.store(z_to + of_row, z, mask=inside)
    tl.store(v_to + of_row, v, mask=inside)


def forward(
    structure: int,
    y_pred: torch.Tensor,
    y: torch.Tensor,
    squared_mahalanobis: torch.Tensor,
    half_log_det: torch.Tensor,
    variance: torch.Tensor | None,
    z: torch.Tensor,
    v: torch.Tensor,
) -> None:
    """Fill the last five arguments, like `kmvn_forward` of native/core/elliptical.h.

    Args:
        structure: int, a value of `STRUCTURES`.
        y_pred: (rows, 2 d + k), whose rows need not be adjacent.
        y: (rows, d), contiguous like all following arguments.
        squared_mahalanobis: (rows,)
        half_log_det: (rows,)
        variance: (rows, d), only for Cholesky; None if not requested.
        z: (rows, d)
        v: (rows, d)

    """
    rows, d = y.shape
    if rows == 0:
        return
    columns = triton.next_power_of_2(d)
    tile = max(NUMBERS_OF_A_WARP // columns, 1)
    _forward_kernel[(triton.cdiv(rows, tile),)](
        y_pred,
        y,
        squared_mahalanobis,
        half_log_det,
        variance,
        z,
        v,
        rows,
        y_pred.stride(0),
        cholesky=structure == STRUCTURES["cholesky"],
        d=d,
        columns=columns,
        tile=tile,
        # With more warps, each sum over the columns of a long row would wait for other warps.
        num_warps=1,
        enable_fp_fusion=True,
    )


# --- backward ------------------------------------------------------------------------------------


@triton.jit
def _backward_kernel(
    y_pred,
    y,
    z,
    v,
    squared_mahalanobis_bar,
    half_log_det_bar,
    mean_bar,
    y_pred_bar,
    rows,
    stride,
    cholesky: tl.constexpr,
    fixed_mean: tl.constexpr,
    d: tl.constexpr,
    columns: tl.constexpr,
    places: tl.constexpr,
    tile: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)[None, None] * tile + tl.arange(0, tile)[:, None]
    here = row < rows
    k: tl.constexpr = d * (d - 1) // 2
    packed = y_pred + row * stride
    to = y_pred_bar + row * (2 * d + k)
    twice = 2.0 * tl.load(squared_mahalanobis_bar + row, mask=here, other=0.0)

    column = tl.arange(0, columns)[None, :]
    inside = here & (column < d)
    of_row = row * d + column
    scale = tl.load(packed + d + column, mask=inside, other=1.0)
    mean = tl.load(packed + column, mask=inside, other=0.0)
    u = (tl.load(y + of_row, mask=inside, other=0.0) - mean) / scale
    along = twice * tl.load(v + of_row, mask=inside, other=0.0)
    log_bar = tl.load(half_log_det_bar + row, mask=here, other=0.0)
    of_mean = tl.zeros(u.shape, u.dtype) if fixed_mean else -along / scale
    if mean_bar is not None:
        of_mean += tl.load(mean_bar + of_row, mask=inside, other=0.0)
    tl.store(to + column, of_mean, mask=inside)
    tl.store(to + d + column, (log_bar - u * along) / scale, mask=inside)

    # N_bar_ij = ∓2 squared_mahalanobis_bar left_i right_j
    for begin in range(0, k, places):
        place = begin + tl.arange(0, places)[None, :]
        written = here & (place < k)
        i, j = _row_and_column(place)
        left = tl.load((v if cholesky else z) + row * d + i, mask=written, other=0.0)
        if cholesky:
            right = -tl.load(z + row * d + j, mask=written, other=0.0)
        else:
            scale_j = tl.load(packed + d + j, mask=written, other=1.0)
            mean_j = tl.load(packed + j, mask=written, other=0.0)
            right = (tl.load(y + row * d + j, mask=written, other=0.0) - mean_j) / scale_j
        tl.store(to + 2 * d + place, twice * left * right, mask=written)


def backward(
    structure: int,
    fixed_mean: bool,
    y_pred: torch.Tensor,
    y: torch.Tensor,
    z: torch.Tensor,
    v: torch.Tensor,
    squared_mahalanobis_bar: torch.Tensor,
    half_log_det_bar: torch.Tensor,
    mean_bar: torch.Tensor | None,
    y_pred_bar: torch.Tensor,
) -> None:
    """Fill the last argument, like `kmvn_backward` of native/core/elliptical.h.

    Args:
        structure: int, a value of `STRUCTURES`.
        fixed_mean: bool, whether squared_mahalanobis is treated as independent of the mean.
        y_pred: (rows, 2 d + k), whose rows need not be adjacent.
        y: (rows, d), contiguous like all following arguments.
        z: (rows, d), from the forward pass.
        v: (rows, d), from the forward pass.
        squared_mahalanobis_bar: (rows,)
        half_log_det_bar: (rows,)
        mean_bar: (rows, d), cotangent of the mean output; None if there is none.
        y_pred_bar: (rows, 2 d + k)

    """
    rows, d = y.shape
    if rows == 0:
        return
    columns = triton.next_power_of_2(d)
    places = min(triton.next_power_of_2(max(d * (d - 1) // 2, 1)), NUMBERS_WRITTEN)
    tile = max(NUMBERS_WRITTEN // max(columns, places), 1)
    _backward_kernel[(triton.cdiv(rows, tile),)](
        y_pred,
        y,
        z,
        v,
        squared_mahalanobis_bar,
        half_log_det_bar,
        mean_bar,
        y_pred_bar,
        rows,
        y_pred.stride(0),
        cholesky=structure == STRUCTURES["cholesky"],
        fixed_mean=fixed_mean,
        d=d,
        columns=columns,
        places=places,
        tile=tile,
        num_warps=WARPS_THAT_WRITE,
        enable_fp_fusion=True,
    )
