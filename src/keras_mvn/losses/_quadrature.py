"""E ‖X‖^p of a normal X, by a one-dimensional integral over its Laplace transform.

For 0 < p < 2 and φ(t) = E exp(−t ‖X‖²),

    E ‖X‖^p = (p/2) / Γ(1 − p/2) ∫₀^∞ (1 − φ(t)) t^(−1 − p/2) dt.

With t = (c tan θ)² the integrand is smooth up to θ^(1 − p) at 0 and (π/2 − θ)^(p − 1) at π/2, which
Gauss–Jacobi quadrature takes as its weight (Gauss–Legendre for p = 1): 16 nodes are enough for
float32 when c is about 1/√E‖X‖².
"""

from __future__ import annotations

import functools
import math

import numpy as np

from keras_mvn.types import Array

__all__ = ["NODES", "norm_power_rule"]

NODES = 16


@functools.lru_cache(maxsize=16)
def norm_power_rule(p: float, nodes: int = NODES) -> tuple[Array, Array]:
    """(τ, w) with E ‖X‖^p ≈ c^(−p) Σ_k w_k (1 − φ(c² τ_k)): (nodes,), (nodes,).

    >>> tau, w = norm_power_rule(1.0)  # E |X| = √(2/π) for X ~ N(0, 1), φ(t) = (1 + 2t)^(−½)
    >>> float((w * (1 - (1 + 2 * tau) ** -0.5)).sum().round(12)), round((2 / math.pi) ** 0.5, 12)
    (0.797884560803, 0.797884560803)
    """
    x, w = _gauss_jacobi(nodes, p - 1.0, 1.0 - p)
    theta = 0.25 * math.pi * (1.0 + x)
    density = np.cos(theta) ** (p - 1.0) * np.sin(theta) ** (-1.0 - p)
    smooth = w * density / ((1.0 - x) ** (p - 1.0) * (1.0 + x) ** (1.0 - p))
    constant = 0.5 * p / math.gamma(1.0 - 0.5 * p)
    return np.tan(theta) ** 2, 0.5 * math.pi * constant * smooth


def _gauss_jacobi(n: int, alpha: float, beta: float) -> tuple[Array, Array]:
    """Nodes and weights for (1 − x)^α (1 + x)^β on (−1, 1), by Golub & Welsch (1969); α + β = 0."""
    k = np.arange(1, n, dtype=np.float64)
    squared = (k + alpha) * (k + beta) / (4.0 * k**2 - 1.0)
    jacobi = np.diag(np.sqrt(squared), 1) + np.diag(np.sqrt(squared), -1)
    jacobi[0, 0] = 0.5 * (beta - alpha)
    nodes, vectors = np.linalg.eigh(jacobi)
    total = 2.0 * math.gamma(1.0 + alpha) * math.gamma(1.0 + beta)
    return nodes, total * vectors[0] ** 2
