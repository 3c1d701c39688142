"""The expectation E ‖X‖ of a normal X by a one-dimensional integral, on tensors and arrays.

The energy score consists of two such expectations; loss and score both use this module. The
integral is in `_core.norm_quadrature`.
"""

from __future__ import annotations

from keras_mvn._core.norm_quadrature import norm_power_rule
from keras_mvn._core.numeric import constant_like, namespace
from keras_mvn._core.types import Tensor

__all__ = ["log_laplace", "mean_norm", "scaled_nodes"]


def scaled_nodes(mean_square: Tensor, smallest: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return t and w with E ‖X‖ ≈ Σ w (1 − φ(t)), φ(t) = E exp(−t ‖X‖²): (..., nodes) each.

    Args:
        mean_square: E ‖X‖², (..., 1).
        smallest: float, replaces smaller values of mean_square; with 0, only 0 is replaced, by 1.

    """
    xp = namespace(mean_square)
    nodes, weights = (constant_like(array, mean_square) for array in norm_power_rule(1.0))
    floor = xp.full_like(mean_square, smallest or 1.0)
    squared = xp.where(mean_square > smallest, mean_square, floor)
    return nodes / squared, weights * xp.sqrt(squared)


def log_laplace(eigenvalues: Tensor, b: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return log E exp(−t ‖X‖²) and 1/(1 + 2tλ) at t: (..., nodes), (..., nodes, d).

    Args:
        eigenvalues: (..., d), eigenvalues λ ≥ 0 of the covariance of X.
        b: (..., d), the mean of X along the eigenvectors.
        t: (..., nodes).

    """
    xp = namespace(eigenvalues)
    growth = 2.0 * t[..., None] * eigenvalues[..., None, :]
    shrunk = 1.0 / (1.0 + growth)
    exponent = 0.5 * xp.log1p(growth) + t[..., None] * (b * b)[..., None, :] * shrunk
    return -xp.sum(exponent, axis=-1), shrunk


def mean_norm(eigenvalues: Tensor, b: Tensor, smallest: float = 0.0) -> Tensor:
    """Return E ‖X‖ from eigenvalues of the covariance and the mean along its eigenvectors: (...).

    Args:
        eigenvalues: (..., d), λ ≥ 0.
        b: (..., d), the mean along the eigenvectors.
        smallest: as in `scaled_nodes`.

    """
    xp = namespace(eigenvalues)
    t, weights = scaled_nodes(xp.sum(eigenvalues + b * b, axis=-1, keepdims=True), smallest)
    log_phi, _ = log_laplace(eigenvalues, b, t)
    return xp.sum(weights * -xp.expm1(log_phi), axis=-1)
