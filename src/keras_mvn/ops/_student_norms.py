"""The expectation E ‖X‖^p of a Student's t by a one-dimensional integral, on tensors.

X = m + √V Z, with Z ~ N(0, Σ) and 1/V a gamma variable G with shape and rate ν/2. For fixed V,
E ‖X‖^p is the integral of `_core.norm_quadrature`, with the Laplace transform exp(−A − B/V) at τ/V:

    A = ½ log det(I + 2τΣ),   B = τ mᵀ (I + 2τΣ)⁻¹ m.

Neither depends on V, so that the mean over V is in closed form:

    E ‖X‖^p = E V^(p/2) ∫ (1 − φ(τ)) dμ_p(τ),   φ = e^(−A) (1 + 2B/ν)^(−(ν − p)/2).

The cost is that of a normal, for which the last factor is e^(−B).
"""

from __future__ import annotations

from keras import ops

from keras_mvn._core.log_gamma import scaled_log_gamma_ratio
from keras_mvn._core.norm_quadrature import norm_power_rule
from keras_mvn._core.numeric import constant_like
from keras_mvn._core.types import Tensor

__all__ = ["power_factor", "spread_factor", "student_log_laplace", "student_mean_power"]

_TINY = 1e-12
"""Added to mean squares, in squared standard deviations of y, as 0^p has no slope."""


def power_factor(nu: Tensor, p: float) -> Tensor:
    """Return E V^(p/2) = (ν/2)^(p/2) Γ((ν − p)/2)/Γ(ν/2), for ν > p: (...)."""
    log_ratio = scaled_log_gamma_ratio(0.5 * (nu - p), ops.full_like(nu, 0.5 * p))
    return ops.exp(-0.5 * p * ops.log1p(-p / nu) - log_ratio)


def spread_factor(nu: Tensor) -> Tensor:
    """Return E √(V + V′), with V′ an independent copy of V, for ν > 1: (...).

    With it, E ‖X − X′‖ = E √(V + V′) E ‖Z‖. It is √8 ν^½/(ν − 1) Γ(½(ν + 1))²/Γ(½ν)² Γ(ν − ½)/Γ(ν).
    """
    half = ops.full_like(nu, 0.5)
    first = scaled_log_gamma_ratio(0.5 * nu, half)
    second = scaled_log_gamma_ratio(nu - 0.5, half)
    powers = nu / (nu - 1.0) * ops.sqrt(2.0 * nu / (nu - 0.5))
    return powers * ops.exp(2.0 * first - second)


def student_log_laplace(
    eigenvalues: Tensor, b: Tensor, t: Tensor, nu: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log φ(t) for p = 1, 2B/ν and 1/(1 + 2tλ): (..., nodes) twice, (..., nodes, d).

    Args:
        eigenvalues: (..., d), eigenvalues λ ≥ 0 of Σ.
        b: (..., d), m along the eigenvectors.
        t: (..., nodes).
        nu: (...).

    """
    growth = 2.0 * t[..., None] * eigenvalues[..., None, :]
    shrunk = 1.0 / (1.0 + growth)
    square = ops.sum(t[..., None] * (b * b)[..., None, :] * shrunk, axis=-1)
    x = square * (2.0 / nu)[..., None]
    by_scale = -0.5 * ops.sum(ops.log1p(growth), axis=-1)
    return by_scale - 0.5 * (nu - 1.0)[..., None] * ops.log1p(x), x, shrunk


def student_mean_power(gap: Tensor, variance: Tensor, nu: Tensor, p: float) -> Tensor:
    """Return E |X|^p for a t with location `gap` and scale √variance, elementwise, for ν > p."""
    if p == 2.0:
        return variance * (nu / (nu - 2.0)) + gap * gap
    nodes, weights = (constant_like(array, gap) for array in norm_power_rule(p))
    # The integral does not depend on where its nodes are, so no gradient flows through them.
    squared = ops.stop_gradient(variance + gap * gap) + _TINY
    t = nodes / squared[..., None]
    growth = 2.0 * t * variance[..., None]
    b = t * (gap * gap)[..., None] / (1.0 + growth)
    nu_there = (nu + ops.zeros_like(gap))[..., None]
    log_phi = -0.5 * ops.log1p(growth) - 0.5 * (nu_there - p) * ops.log1p(2.0 * b / nu_there)
    total = ops.sum(weights * -ops.expm1(log_phi), axis=-1)
    return power_factor(nu, p) * total * squared ** (0.5 * p)
