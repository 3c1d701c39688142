"""The exact energy score of a multivariate Student's t, with its gradient.

E ‖X − y‖ − ½ E ‖X − X′‖ = E √V g(Σ, m, ν) − ½ E √(V + V′) g(Σ, 0, ∞), where m = μ − y and
g(Σ, m, ν) = ∫ (1 − φ(t)) dμ(t), by the formulas of `ops._student_norms`: one eigendecomposition,
and 64 nodes for each of the two integrals, as for a normal.
"""

from __future__ import annotations

from keras import ops

from keras_mvn._core.numeric import differentiable
from keras_mvn._core.types import Tensor
from keras_mvn.ops._mean_norm import log_laplace, mean_norm, scaled_nodes
from keras_mvn.ops._student_norms import power_factor, spread_factor, student_log_laplace

__all__ = ["student_energy"]

_TINY = 1e-12
"""Smallest mean square, in squared standard deviations of y."""


def student_energy(sigma: Tensor, error: Tensor, nu: Tensor) -> Tensor:
    """Return the score: scale matrices (..., d, d), errors m (..., d), ν (...) → (...)."""
    # A single output carries all that the backward pass needs; only two numbers of it are used.
    both = differentiable(_forward, _vjp, sigma, error, nu)
    near, spread = both[..., 0, 0], both[..., 0, 1]
    return power_factor(nu, 1.0) * near - 0.5 * spread_factor(nu) * spread


def _forward(sigma: Tensor, error: Tensor, nu: Tensor) -> Tensor:
    """Return [g(Σ, m, ν) | g(Σ, 0, ∞) | eigenvalues | m along eigenvectors | eigenvectors]."""
    eigenvalues, vectors = ops.linalg.eigh(sigma)
    eigenvalues = ops.where(eigenvalues > 0, eigenvalues, ops.zeros_like(eigenvalues))
    b = (ops.swapaxes(vectors, -1, -2) @ error[..., None])[..., 0]
    t, weights = _nodes(eigenvalues, b)
    log_phi, _, _ = student_log_laplace(eigenvalues, b, t, nu)
    near = ops.sum(weights * -ops.expm1(log_phi), axis=-1)
    spread = mean_norm(eigenvalues, ops.zeros_like(b), _TINY)
    along = ops.zeros_like(b)
    columns = [near[..., None] + along, spread[..., None] + along, eigenvalues, b]
    return ops.concatenate([ops.stack(columns, axis=-1), vectors], axis=-1)


def _vjp(
    bar: Tensor, output: Tensor, sigma: Tensor, error: Tensor, nu: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients with respect to Σ, the error m and ν, from those of both g.

    With D_k = (I + 2 t_k Λ)⁻¹, x_k = 2 B_k/ν and ρ_k = (ν − 1)/ν/(1 + x_k):

        ∂g/∂Σ = U [Σ_k w_k φ_k (t_k D_k − 2 ρ_k t_k² (D_k b)(D_k b)ᵀ)] Uᵀ,
        ∂g/∂m = U Σ_k w_k φ_k 2 ρ_k t_k D_k b,   ∂g/∂ν = ½ Σ_k w_k φ_k (log(1 + x_k) − ρ_k x_k).
    """
    eigenvalues, b, vectors = output[..., 2], output[..., 3], output[..., 4:]
    near_bar, spread_bar = bar[..., 0, 0][..., None], bar[..., 0, 1][..., None]

    t, weights = _nodes(eigenvalues, b)
    log_phi, x, shrunk = student_log_laplace(eigenvalues, b, t, nu)
    weights = near_bar * weights * ops.exp(log_phi)
    rho = ((nu - 1.0) / nu)[..., None] / (1.0 + x)
    nu_bar = 0.5 * ops.sum(weights * (ops.log1p(x) - rho * x), axis=-1)
    along = t[..., None] * shrunk * b[..., None, :]  # (..., nodes, d)
    pulled = (2.0 * weights * rho)[..., None] * along
    # t² alone may be infinite where b is 0: t is in either factor.
    outer = ops.swapaxes(pulled, -1, -2) @ along
    diagonal = ops.sum((weights * t)[..., None] * shrunk, axis=-2)

    t, weights = _nodes(eigenvalues, ops.zeros_like(b))
    log_phi, shrunk = log_laplace(eigenvalues, ops.zeros_like(b), t)
    pull = (spread_bar * weights * ops.exp(log_phi) * t)[..., None]
    diagonal = diagonal + ops.sum(pull * shrunk, axis=-2)

    transposed = ops.swapaxes(vectors, -1, -2)
    inner = (vectors * diagonal[..., None, :]) @ transposed - vectors @ outer @ transposed
    error_bar = (vectors @ ops.sum(pulled, axis=-2)[..., None])[..., 0]
    return inner, error_bar, nu_bar


def _nodes(eigenvalues: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return t and weights, (..., nodes) each, where ‖X‖ is to be averaged."""
    return scaled_nodes(ops.sum(eigenvalues + b * b, axis=-1, keepdims=True), _TINY)
