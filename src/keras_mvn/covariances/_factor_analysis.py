"""Fit of a factor model to a covariance, or to its leading directions, in float64.

Maximum likelihood factor analysis: minimize KL(N(0, Σ) ‖ N(0, S (I + V Vᵀ) S)). For given
uniquenesses ψ = scale², the optimal V follows from the eigenvalues θ_k (largest first) and
eigenvectors ω_k of Ψ^(−½) Σ Ψ^(−½): V = [√(θ_k − 1) ω_k], k ≤ r. What remains is the discrepancy
f(ψ) = Σ (θ_k − log θ_k − 1) over the eigenvalues that V does not fit, which is twice the
divergence. f is minimized over log ψ, with uniquenesses that reach their floor held there: first
with the part of the Hessian that is always positive, with which f falls to 0 quickly if Σ is of
this form, and which rarely ends in a poor local minimum; then with Newton's method.

Source: Jöreskog, "Some contributions to maximum likelihood factor analysis", Psychometrika 32
(1967); Lawley & Maxwell 1971, ch. 4. For the fit to leading directions: Tipping & Bishop,
"Probabilistic principal component analysis", J. R. Stat. Soc. B 61 (1999).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.covariances._from_dense import correlation_cholesky

__all__ = ["closest_factors", "leading_factors"]

UNIQUENESS_FLOOR = 1e-6
"""Smallest unique fraction of a target's variance (without it, a Heywood case would end at 0)."""

SMALL = 32
"""Up to this d, an inexact fit is repeated from other starting points, to avoid local minima."""

_FLOOR = float(np.log(UNIQUENESS_FLOOR))


def closest_factors(covariance: Array, rank: int) -> tuple[Array, Array]:
    """Return (scale, V row by row) of the closest factor model: (..., d, d) → (..., d), (..., d r).

    Raises:
        ValueError: Σ is not positive definite.

    """
    stddev, factor = correlation_cholesky(covariance)
    batch, d = stddev.shape[:-1], stddev.shape[-1]
    scale = np.empty((*batch, d))
    loadings = np.zeros((*batch, d, rank))
    for index in np.ndindex(batch):
        fit = _minimize(factor[index], rank)
        kept = min(rank, d)
        scale[index] = np.exp(0.5 * fit.log_psi)
        excess = np.maximum(fit.theta[:kept] - 1.0, 0.0)
        loadings[index][:, :kept] = fit.omega[:, :kept] * np.sqrt(excess)
    return stddev * scale, loadings.reshape(*batch, d * rank)


class _Fit(NamedTuple):
    log_psi: Array
    theta: Array
    """Largest first."""
    omega: Array
    unfitted: Array
    """The eigenvalues minus 1 where V does not fit them, 0 elsewhere."""
    discrepancy: float


def _minimize(factor: Array, rank: int) -> _Fit:
    d = len(factor)
    inverse = np.linalg.solve(factor, np.eye(d))
    start = (1.0 - min(rank, d) / (2.0 * d)) / (inverse**2).sum(axis=0)
    best = _descend_twice(factor, start, rank)
    others = (np.full(d, 0.5), np.sqrt(start), np.full(d, 0.1))
    for other in others if d <= SMALL else ():
        if best.discrepancy > 1e-20:
            found = _descend_twice(factor, other, rank)
            best = min(best, found, key=lambda fit: fit.discrepancy)
    return best


def _descend_twice(factor: Array, start: Array, rank: int) -> _Fit:
    fit = _fit(factor, np.maximum(np.log(start), _FLOOR), rank)
    fit = _descend(factor, fit, rank, _positive_hessian, steps=100)
    return _descend(factor, fit, rank, _hessian, steps=100)


def _descend(
    factor: Array, fit: _Fit, rank: int, hessian: Callable[[_Fit], Array], steps: int
) -> _Fit:
    """Take Levenberg–Marquardt steps until the gradient vanishes or is lost in rounding errors."""
    d, damping = len(factor), 1e-3
    for _ in range(steps):
        gradient = -(fit.omega**2) @ fit.unfitted
        free = (fit.log_psi > _FLOOR) | (gradient < 0.0)
        if np.abs(gradient[free]).max(initial=0.0) < 1e-13 or damping > 1e8:
            break
        step = np.zeros(d)
        damped = hessian(fit)[np.ix_(free, free)] + damping * np.eye(int(free.sum()))
        step[free] = np.clip(np.linalg.solve(damped, -gradient[free]), -2.0, 2.0)
        moved = _fit(factor, np.clip(fit.log_psi + step, _FLOOR, 0.0), rank)
        if moved.discrepancy < fit.discrepancy:
            fit, damping = moved, max(0.1 * damping, 1e-15)
        else:
            damping *= 10.0
    return fit


def _positive_hessian(fit: _Fit) -> Array:
    """Return (Σ_k ω_ik ω_jk)², where k runs over the eigenvalues that V does not fit."""
    left = fit.omega[:, fit.unfitted != 0.0]
    return np.asarray((left @ left.T) ** 2)


def _hessian(fit: _Fit) -> Array:
    """Return the Hessian of the discrepancy in log ψ, whose gradient is Σ_k (1 − θ_k) ω_ik².

    (Σ_k θ_k ω_ik ω_jk)(Σ_k ω_ik ω_jk) + Σ_km (1 − θ_k) (θ_m + θ_k)/(θ_m − θ_k) ω_ik ω_jk ω_im ω_jm,
    where k runs over the eigenvalues that V does not fit, and m over those that it fits.
    """
    fitted = fit.unfitted == 0.0
    left, theta, unfitted = fit.omega[:, ~fitted], fit.theta[~fitted], fit.unfitted[~fitted]
    hessian = ((left * theta) @ left.T) * (left @ left.T)
    for omega_m, theta_m in zip(fit.omega[:, fitted].T, fit.theta[fitted], strict=True):
        weight = -unfitted * (theta_m + theta) / np.maximum(theta_m - theta, 1e-12)
        hessian += ((left * weight) @ left.T) * np.outer(omega_m, omega_m)
    return np.asarray(hessian)


def _fit(factor: Array, log_psi: Array, rank: int) -> _Fit:
    # The squared singular values of Ψ^(−½) L are the eigenvalues; forming Σ would lose accuracy.
    omega, singular, _ = np.linalg.svd(np.exp(-0.5 * log_psi)[:, None] * factor)
    theta = singular**2
    excess = theta - 1.0
    excess[:rank] = np.minimum(excess[:rank], 0.0)
    return _Fit(log_psi, theta, omega, excess, float((excess - np.log1p(excess)).sum()))


def leading_factors(stddev: Array, directions: Array, rank: int) -> tuple[Array, Array]:
    """Return (scale, V row by row) from F (d, p) with correlation ≈ F Fᵀ off the diagonal.

    V holds the r leading principal components of F Fᵀ, each reduced by the mean variance of the
    remaining ones; the uniquenesses make up the rest of each target's variance.
    """
    d = len(stddev)
    eigenvalues, vectors = np.linalg.eigh(directions.T @ directions)
    eigenvalues, vectors = eigenvalues[::-1][:rank], vectors[:, ::-1][:, :rank]
    noise = max(0.0, (d - eigenvalues.sum()) / (d - rank))
    share = np.sqrt(np.maximum(eigenvalues - noise, 0.0) / np.maximum(eigenvalues, 1e-300))
    loadings = directions @ (vectors * share)
    common = (loadings**2).sum(axis=1, keepdims=True)
    room = (1.0 - UNIQUENESS_FLOOR) / np.maximum(common, 1e-300)
    loadings = loadings * np.sqrt(np.minimum(1.0, room))
    root = np.sqrt(1.0 - (loadings**2).sum(axis=1))
    return stddev * root, (loadings / root[:, None]).reshape(-1)
