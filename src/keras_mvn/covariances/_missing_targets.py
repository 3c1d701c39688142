"""Whitening of the observed targets of a row, given any matrix K that whitens the full row.

z = K u is standard normal for the full row. If some targets are missing, choosing their values to
minimize ‖z‖ leaves the marginal: with D_m and D_o the masks of missing and observed targets, the
whitened residual of the marginal is the least-squares residual of K D_o u on the columns K D_m, and
½ log det R_oo = ½ log det R + ½ log det (D_m KᵀK D_m + D_o). A QR factorization of the stack
[K D_m; D_o] gives both. It never fails, and it loses √κ where a factorization of R_oo loses κ.

Source: Golub & Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares
problems whose variables separate", SIAM J. Numer. Anal. 10 (1973), for the gradient.
"""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import constant_like, differentiable, namespace, solve_lower
from keras_mvn._core.types import Tensor

__all__ = ["whiten_marginal"]


def whiten_marginal(whitening: Tensor, u: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return z with ‖z‖² = u_oᵀ R_oo⁻¹ u_o, and ½ (log det R_oo − log det R).

    Args:
        whitening: (..., d, d), K with KᵀK = R⁻¹.
        u: (..., d), finite everywhere; values of missing targets are ignored.
        observed: (..., d), 1 where observed and 0 where missing.

    """
    xp = namespace(whitening, u)
    d = u.shape[-1]
    identity = constant_like(np.eye(d), u)
    columns = xp.concatenate(
        [whitening * (1.0 - observed)[..., None, :], identity * observed[..., None, :]], axis=-2
    )
    seen = (whitening @ (u * observed)[..., None])[..., 0]
    stacked = xp.concatenate([seen, xp.zeros_like(seen)], axis=-1)
    # A single output carries everything for the backward pass; the caller uses two columns of it.
    solved = differentiable(_project, _project_vjp, columns, stacked)
    return solved[..., :d, 0], solved[..., 0, 1]


def _project(w: Tensor, b: Tensor) -> Tensor:
    """Return [b − Q Qᵀ b | log |det T| | Q | T] with W = Q T: (..., 2d, 2 + 2d)."""
    xp = namespace(w, b)
    q, t = xp.linalg.qr(w)
    residual = b - _times(q, _times(_transpose(q), b))
    half_log_det = xp.sum(xp.log(xp.abs(xp.diagonal(t, axis1=-2, axis2=-1))), axis=-1)
    column = half_log_det[..., None, None] + xp.zeros_like(b)[..., None]
    below = xp.concatenate([t, xp.zeros_like(t)], axis=-2)
    return xp.concatenate([residual[..., None], column, q, below], axis=-1)


def _project_vjp(bar: Tensor, output: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of `_project` with respect to W and b.

    With P = I − Q Qᵀ: W_bar = −(P z_bar)(W⁺b)ᵀ − (P b)(W⁺z_bar)ᵀ + half_log_det_bar Q T⁻ᵀ.
    """
    d = w.shape[-1]
    residual, q, t = output[..., 0], output[..., 2 : d + 2], output[..., :d, d + 2 :]
    z_bar, half_log_det_bar = bar[..., 0], bar[..., :1, 1:2]
    pseudo_inverse = solve_lower(_transpose(t), _transpose(q), transposed=True)
    b_bar = z_bar - _times(q, _times(_transpose(q), z_bar))
    w_bar = (
        half_log_det_bar * _transpose(pseudo_inverse)
        - b_bar[..., :, None] * _times(pseudo_inverse, b)[..., None, :]
        - residual[..., :, None] * _times(pseudo_inverse, z_bar)[..., None, :]
    )
    return w_bar, b_bar


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x[..., None])[..., 0]


def _transpose(matrix: Tensor) -> Tensor:
    return namespace(matrix).swapaxes(matrix, -1, -2)
