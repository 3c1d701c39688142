"""The two passes over y_pred on a GPU, in Triton: the formulas of native/core/kernel.h.

On the CPU a vector has a row in each lane; here the lanes of a warp are the columns of N, because
they stand side by side in memory and are then fetched together. Forward, a program has one warp
and a few rows, whose u, z and v stay in registers; it goes through N row by row, with one sum over
lanes for each. Substituting back needs N once more, which the caches still have. Backward there is
nothing to sum: every number of the gradient is a product, and programs write them as they stand.

Complete rows only. Run in Triton's interpreter and compiled for sm_80 and sm_90 without a GPU;
on a GPU it has been neither run nor timed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from keras_mvn.kernels.elliptical.types import STRUCTURES

__all__ = ["backward", "forward"]

WARP = 32

FORWARD_NUMBERS = 256
"""Of a row of N, for all rows of a forward program: 8 in each lane leave registers for the rest."""

FORWARD_STAGES = 3
"""Rows of N on their way from memory while one is worked on."""

BACKWARD_NUMBERS = 1024
"""Of the gradient, that a backward program writes at once."""

BACKWARD_WARPS = 4


# --- N, whose rows stand one behind the other ----------------------------------------------------


@triton.jit
def _row(shape, i, column, there):  # type: ignore[no-untyped-def]
    """Row i of N (ROWS, COLUMNS); 0 on and above the diagonal."""
    return tl.load(shape + i * (i - 1) // 2 + column, mask=there & (column < i), other=0.0)


@triton.jit
def _place(position):  # type: ignore[no-untyped-def]
    """Row and column of what stands at a position of N."""
    i = ((1.0 + tl.sqrt(8.0 * position.to(tl.float32) + 1.0)) * 0.5).to(tl.int32)
    i = tl.where(i * (i - 1) // 2 > position, i - 1, i)  # the root was rounded
    i = tl.where(i * (i + 1) // 2 <= position, i + 1, i)
    return i, position - i * (i - 1) // 2


# --- products and substitutions with I + N, as in native/core/unit_lower.h -----------------------
# What is 0 in N is left out, not multiplied: 0 · inf is NaN, in columns that nothing happened to.


@triton.jit
def _solve(shape, u, column, there, D: tl.constexpr, SQUARES: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """(I + N) z = u; with SQUARES also 1 + Σ_j N_ij², else something."""
    z = tl.where(column == 0, u, 0.0)
    squares = u * 0.0 + 1.0
    for i in tl.range(1, D, num_stages=FORWARD_STAGES):
        n = _row(shape, i, column, there)
        terms = tl.where(column == i, u, tl.where(column < i, -n * z, 0.0))
        z = tl.where(column == i, tl.sum(terms, axis=1, keep_dims=True), z)
        if SQUARES:
            squares = tl.where(column == i, 1.0 + tl.sum(n * n, axis=1, keep_dims=True), squares)
    return z, squares
