"""The divergence KL(p‖q) of two normal distributions from their factors, on tensors and arrays.

KL(p‖q) = ½ [tr(Σ_q⁻¹ Σ_p) + ‖K_q (μ_p − μ_q)‖² − d] + ½ log det Σ_q − ½ log det Σ_p, where K_q
whitens q, and tr(Σ_q⁻¹ Σ_p) = ‖K_q F_p‖² for any factor F_p with Σ_p = F_p F_pᵀ. Scales are divided
by those of q before anything is squared, so that units neither overflow nor underflow, and their
logarithms do not cancel.

If R = I + V Vᵀ (`Covariance.loadings`) on both sides, nothing of size d × d is formed. With t =
s_p / s_q, the trace is Σ_j t_j² (R_q⁻¹)_jj + ‖K_q diag(t) V_p‖², and (R_q⁻¹)_jj = 1 − h_j, where
h_j is the leverage of row j of V_q stacked on an identity. That difference cancels where h_j is
near 1; there, e_j is whitened instead. The leverages sum to less than r, so fewer than 2 r of them
exceed ½, and whitening the 2 r largest is enough.

Source: Rasmussen & Williams, "Gaussian Processes for Machine Learning", 2006, eq. A.23; Hoaglin &
Welsch, "The hat matrix in regression and ANOVA", The American Statistician 32 (1978).
"""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import constant_like, differentiable, namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters

__all__ = ["kl_divergence"]


def kl_divergence(p: Covariance, p_at: Parameters, q: Covariance, q_at: Parameters) -> Tensor:
    """Return KL(N_p ‖ N_q) in nats, for parameters with equal batch axes: (...)."""
    xp = namespace(p_at.mean)
    ratio = _divide(p_at.scale, q_at.scale)
    z, half_log_det_q = q.whiten_with_vjp(
        q_at.shape_params, _divide(p_at.mean - q_at.mean, q_at.scale)
    )
    _, half_log_det_p = p.whiten_with_vjp(p_at.shape_params, xp.zeros_like(z))
    squares = _trace(p, p_at.shape_params, q, q_at.shape_params, ratio) + xp.sum(z * z, axis=-1)
    half_log_det = half_log_det_q - half_log_det_p - xp.sum(xp.log(ratio), axis=-1)
    return 0.5 * (squares - z.shape[-1]) + half_log_det


def _divide(x: Tensor, scale: Tensor) -> Tensor:
    """Return x / scale, with a gradient that does not square the scale."""
    return differentiable(
        lambda x, scale: x / scale,
        lambda u_bar, u, _, scale: (u_bar / scale, -(u_bar * u) / scale),
        x,
        scale,
    )


def _trace(p: Covariance, shape_p: Tensor, q: Covariance, shape_q: Tensor, ratio: Tensor) -> Tensor:
    """Return tr(R_q⁻¹ A), A = diag(ratio) R_p diag(ratio): (...)."""
    d = ratio.shape[-1]
    v_p, v_q = p.loadings(shape_p, d), q.loadings(shape_q, d)
    if v_q is not None and v_q.shape[-1] == 0:
        return namespace(ratio).sum(p.variance(ratio, shape_p), axis=-1)
    if v_p is not None and v_q is not None and d > 2 * v_q.shape[-1]:
        return _diagonal_trace(q, shape_q, v_q, ratio) + _columns_trace(q, shape_q, v_p, ratio)
    whitening = q.whitening_matrix(shape_q, d) * ratio[..., None, :]
    if v_p is not None:
        return _sum_of_squares(whitening) + _sum_of_squares(whitening @ v_p)
    return _sum_of_squares(whitening @ p.coloring_matrix(shape_p, d))


def _diagonal_trace(q: Covariance, shape_params: Tensor, v: Tensor, ratio: Tensor) -> Tensor:
    """Return Σ_j ratio_j² (R⁻¹)_jj, R = I + V Vᵀ: (...)."""
    xp = namespace(v)
    leverage = _leverage(v)
    largest = xp.argsort(-leverage, axis=-1)[..., : 2 * v.shape[-1]]
    # The unit vectors e_j of the largest leverages: (..., 2 r, d).
    columns = constant_like(largest[..., None] == xp.arange(v.shape[-2]), v)
    others = 1.0 - xp.sum(columns, axis=-2)
    small = xp.sum(others * ratio * ratio * (1.0 - leverage), axis=-1)
    return small + _sum_of_squares(q.whiten_rows(shape_params, columns * ratio[..., None, :]))


def _columns_trace(q: Covariance, shape_params: Tensor, v: Tensor, ratio: Tensor) -> Tensor:
    """Return ‖K diag(ratio) V‖²: (...)."""
    if v.shape[-1] == 0:
        return namespace(ratio).zeros_like(ratio[..., 0])
    rows = namespace(v).swapaxes(v, -1, -2) * ratio[..., None, :]
    return _sum_of_squares(q.whiten_rows(shape_params, rows))


def _leverage(v: Tensor) -> Tensor:
    """Return the diagonal of V (I + Vᵀ V)⁻¹ Vᵀ, exact to rounding: (..., d, r) → (..., d)."""
    # A single output carries all that the backward pass needs; only this part of it is used here.
    return differentiable(_orthogonal, _leverage_vjp, v)[..., : v.shape[-2], 0]


def _orthogonal(v: Tensor) -> Tensor:
    """Return [squared norms of the rows of Q | Q], with [V; I] = Q T: (..., d + r, 1 + r)."""
    xp = namespace(v)
    identity = xp.zeros_like(v[..., :1, :]) + constant_like(np.eye(v.shape[-1]), v)
    q, _ = xp.linalg.qr(xp.concatenate([v, identity], axis=-2))
    return xp.concatenate([xp.sum(q * q, axis=-1, keepdims=True), q], axis=-1)


def _leverage_vjp(bar: Tensor, output: Tensor, v: Tensor) -> Tensor:
    """Return 2 (G Q₁ − Q₁ (Q₁ᵀ G Q₁)) Q₂ᵀ, with G = diag(h_bar), as Q₂ = T⁻¹ and V = Q₁ T."""
    xp, d = namespace(v), v.shape[-2]
    q1, q2 = output[..., :d, 1:], output[..., d:, 1:]
    pulled = bar[..., :d, :1] * q1
    inside = pulled - q1 @ (xp.swapaxes(q1, -1, -2) @ pulled)
    return 2.0 * inside @ xp.swapaxes(q2, -1, -2)


def _sum_of_squares(matrix: Tensor) -> Tensor:
    return namespace(matrix).sum(matrix * matrix, axis=(-2, -1))
