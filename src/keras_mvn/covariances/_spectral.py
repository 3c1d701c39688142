"""The smooth spectral map from a symmetric matrix to the Cholesky factor of a covariance.

H = U diag(λ) Uᵀ ↦ Σ = U diag(exp g(λ)) Uᵀ = L Lᵀ with the bounded g(λ) = λ / √(1 + λ²/b²).

L comes from a QR factorization of M = diag(exp ½g) Uᵀ (Σ = Mᵀ M, so L = Rᵀ), which loses √κ
where a Cholesky factorization of Σ loses κ. The gradient is that of Daleckii and Krein, with
divided differences in closed form: it is correct where eigenvalues repeat, and does not divide by
eigenvalues of Σ, because L⁻¹ U diag(exp ½g) is the orthogonal Qᵀ of that factorization.

Source: Higham, "Functions of Matrices", SIAM 2008, theorem 3.11; Murray, "Differentiation of the
Cholesky decomposition", arXiv:1602.07527.
"""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import differentiable, namespace
from keras_mvn._core.types import Tensor

__all__ = ["LOG_EIGENVALUE_LIMIT", "spectral_cholesky"]

LOG_EIGENVALUE_LIMIT = 0.5 * float(np.log(1e6))
"""The bound b: eigenvalues stay between 1e-3 and 1e3, and the condition number below 1e6."""


def spectral_cholesky(h: Tensor) -> Tensor:
    """Map the symmetric h (..., d, d) to L (..., d, d), lower with a positive diagonal."""
    d = h.shape[-1]
    # A single output carries everything for the backward pass; the caller uses the first d columns.
    return differentiable(_factorize, _vjp, h)[..., :d]


def _factorize(h: Tensor) -> Tensor:
    xp = namespace(h)
    eigenvalues, vectors = xp.linalg.eigh(h)
    # Largest first: Householder QR is accurate for rows of decreasing norm.
    eigenvalues, vectors = xp.flip(eigenvalues, axis=-1), xp.flip(vectors, axis=-1)
    root = xp.exp(0.5 * _bounded(eigenvalues))
    q, r = xp.linalg.qr(root[..., :, None] * _transpose(vectors))
    sign = xp.where(xp.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    sign = sign if xp is np else xp.cast(sign, h.dtype)
    factor = _transpose(r) * sign[..., None, :]
    # QR may leave rounding errors, or worse, above the diagonal of L, which is lower by definition.
    factor = xp.tril(factor)
    return xp.concatenate(
        [factor, vectors, q * sign[..., None, :], eigenvalues[..., :, None]], axis=-1
    )


def _vjp(output_bar: Tensor, output: Tensor, h: Tensor) -> Tensor:
    xp = namespace(h)
    d = h.shape[-1]
    factor, vectors, q = output[..., :d], output[..., d : 2 * d], output[..., 2 * d : 3 * d]
    eigenvalues = output[..., 3 * d]
    product = _transpose(factor) @ output_bar[..., :d]
    lower = xp.tril(product)
    # (Φ(A) + Φ(A)ᵀ)/2, where Φ takes the lower triangle with half the diagonal: half the
    # symmetrized lower triangle, with the diagonal counted once.
    symmetric = 0.5 * (lower + _transpose(lower) - xp.tril(xp.triu(product)))
    inner = _divided_difference(eigenvalues) * (q @ symmetric @ _transpose(q))
    return vectors @ inner @ _transpose(vectors)


def _bounded(eigenvalues: Tensor) -> Tensor:
    """Return g(λ), which lies between −b and b."""
    return eigenvalues / _root(eigenvalues)


def _root(eigenvalues: Tensor) -> Tensor:
    xp = namespace(eigenvalues)
    ratio = eigenvalues / LOG_EIGENVALUE_LIMIT
    return xp.sqrt(1.0 + ratio * ratio)


def _divided_difference(eigenvalues: Tensor) -> Tensor:
    """Return (exp gᵢ − exp gⱼ)/(λᵢ − λⱼ)/exp(½(gᵢ + gⱼ)), also where λᵢ = λⱼ: (..., d, d)."""
    xp = namespace(eigenvalues)
    root = _root(eigenvalues)
    ratio = eigenvalues / LOG_EIGENVALUE_LIMIT
    ri, rj = root[..., :, None], root[..., None, :]
    ti, tj = ratio[..., :, None], ratio[..., None, :]
    # (gᵢ − gⱼ)/(λᵢ − λⱼ) = (1 + rᵢrⱼ − tᵢtⱼ) / ((rᵢ + rⱼ) rᵢrⱼ); where tᵢtⱼ > 0, the difference
    # rᵢrⱼ − tᵢtⱼ would cancel, and is computed as (1 + tᵢ² + tⱼ²) / (rᵢrⱼ + tᵢtⱼ).
    same = ti * tj
    gap = xp.where(same > 0, (1.0 + ti * ti + tj * tj) / (ri * rj + xp.abs(same)), ri * rj - same)
    slope = (1.0 + gap) / ((ri + rj) * ri * rj)
    g = eigenvalues / root
    x = 0.5 * (g[..., :, None] - g[..., None, :])
    small = xp.abs(x) < 1e-2
    safe = xp.where(small, xp.ones_like(x), x)
    sinhc = xp.where(
        small, 1.0 + x * x / 6.0 * (1.0 + x * x / 20.0), (xp.exp(safe) - xp.exp(-safe)) / (2 * safe)
    )
    return slope * sinhc


def _transpose(matrix: Tensor) -> Tensor:
    return namespace(matrix).swapaxes(matrix, -1, -2)
