"""Fusion of two predictions of the same targets by weighted sums of precisions."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import solve_lower
from keras_mvn._core.types import Array
from keras_mvn.covariances import PrecisionCholesky
from keras_mvn.distributions._gaussian import Gaussian

__all__ = ["covariance_intersection", "product"]


def product(p: Gaussian, q: Gaussian) -> Gaussian:
    """The normalized product of two densities: Σ⁻¹ = Σ_p⁻¹ + Σ_q⁻¹."""
    one = np.ones(p.batch_shape)
    return _weighted(p, q, one, one)


def covariance_intersection(p: Gaussian, q: Gaussian, weight: Array | None) -> Gaussian:
    """Fusion by Σ⁻¹ = ω Σ_p⁻¹ + (1 − ω) Σ_q⁻¹, by default with the ω that minimizes det Σ."""
    omega = _smallest_determinant(p, q) if weight is None else weight
    return _weighted(p, q, omega, 1.0 - omega)


def _weighted(p: Gaussian, q: Gaussian, a: Array, b: Array) -> Gaussian:
    """The normal with Σ⁻¹ = a Σ_p⁻¹ + b Σ_q⁻¹ and μ = Σ (a Σ_p⁻¹ μ_p + b Σ_q⁻¹ μ_q).

    Computed by a QR factorization of the stacked whitening matrices, without forming Σ⁻¹.
    """
    unit = p.scale  # y in units of p's scales, so that no units enter the factorization
    blocks = [
        np.sqrt(weight)[..., None, None] * g.whitening() * unit[..., None, :]
        for g, weight in ((p, a), (q, b))
    ]
    shift = (q.mean - p.mean) / unit
    right = np.concatenate([np.zeros(shift.shape), (blocks[1] @ shift[..., None])[..., 0]], axis=-1)
    # Targets in reverse order, so that the factor P of Σ⁻¹ = Pᵀ P is lower triangular.
    stacked = np.concatenate(blocks, axis=-2)[..., ::-1]
    o, t = np.linalg.qr(stacked)
    sign = np.where(np.diagonal(t, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    t = (sign[..., :, None] * t)[..., ::-1, ::-1]
    z = (sign * (np.swapaxes(o, -1, -2) @ right[..., None])[..., 0])[..., ::-1]
    mean = p.mean + unit * solve_lower(t, z[..., None])[..., 0]
    structure = PrecisionCholesky()
    scale, shape_params = structure.from_matrix(t)
    return Gaussian(structure, mean, unit * scale, shape_params)


def _smallest_determinant(p: Gaussian, q: Gaussian) -> Array:
    """The ω in [0, 1] that maximizes log |ω Σ_p⁻¹ + (1 − ω) Σ_q⁻¹|, by bisection on its slope.

    With the eigenvalues λ of Σ_p⁻¹ relative to Σ_q⁻¹, this is Σ log(1 + ω (λ − 1)) plus a constant:
    concave, with the decreasing slope Σ (λ − 1)/(1 + ω (λ − 1)).
    """
    singular = np.linalg.svd(p.whitening() @ q.scale_tril(), compute_uv=False)
    excess = singular**2 - 1.0
    low, high = np.zeros(p.batch_shape), np.ones(p.batch_shape)
    for _ in range(53):  # to the last bit
        middle = 0.5 * (low + high)
        rises = (excess / (1.0 + middle[..., None] * excess)).sum(axis=-1) > 0
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    return np.asarray(0.5 * (low + high))
