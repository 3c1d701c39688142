"""Full covariance, parametrized separately by standard deviations and correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from keras_mvn._core.numeric import constant_like, differentiable, namespace
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances._from_dense import correlation_cholesky
from keras_mvn.covariances._unit_lower import inverse_matrix
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.cholesky import GROWTH_LIMIT, Cholesky
from keras_mvn.covariances.packing import pack_strict_lower, unpack_strict_lower

__all__ = ["Correlation"]

_CHOLESKY = Cholesky()

_NORM_LIMIT = float(np.float32(np.sqrt(2.0 * np.log(GROWTH_LIMIT))))
"""‖R^(−½)‖² = 1/λ_min ≤ e / det R, as the trace of R is d, and −½ log det R = Σ log cosh x ≤ ½‖x‖²:
‖x‖ below this keeps ‖R^(−½)‖ below 1.7e10, for any d."""


@final
@register
@dataclass(frozen=True)
class Correlation(Covariance):
    """Full covariance by standard deviations and correlations: Σ = S R S, R with a unit diagonal.

    `scale` holds the standard deviations of the targets, independent of the shape. R = L Lᵀ, where
    L has rows of length 1, built from canonical partial correlations p_ij = tanh x_ij (of targets i
    and j, given those before j): L_ij = p_ij Π_{k<j} √(1 − p_ik²), L_ii = Π_{k<i} √(1 − p_ik²).
    `shape_params` holds x, the strict lower triangle row by row: any real numbers, the Fisher z
    values of partial correlations. half_log_det = −Σ log cosh x_ij. The loss solves L z = u by
    substitution.

    The network emits d + d(d − 1)/2 numbers besides the mean. O(d²) memory per row; the products of
    cosh x take one d × d × d matrix product, O(d³). Exact for every Σ.

    The raw output for x is bounded smoothly, x = raw / √(1 + ‖raw‖²/F²), F = √(2 log 10¹⁰) = 6.8,
    so that substitution does not overflow float32: for d = 2, correlations reach 0.999998. After
    `adapt`, it limits only the distance from the data's own x.

    Source: Lewandowski, Kurowicka & Joe, "Generating random correlation matrices based on vines and
    extended onion method", J. Multivariate Anal. 100 (2009).

    >>> import numpy as np
    >>> scale, x = Correlation().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> scale, np.tanh(x).round(4)
    (array([2., 3.]), array([0.5]))
    """

    triangular: ClassVar[bool] = True

    def shape_size(self, event_size: int) -> int:
        """Return d(d − 1)/2, the size of x, a strict lower triangle stored row by row."""
        return event_size * (event_size - 1) // 2

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Solve L z = u for z. With L = diag(L_ii)(I + N), this is (I + N) z = u / L_ii."""
        d = u.shape[-1]
        n, log_diagonal = _unit_factor(shape_params, d)
        xp = namespace(u)
        z, _ = _CHOLESKY.whiten_with_vjp(n, u * xp.exp(-log_diagonal))
        return z, xp.sum(log_diagonal, axis=-1)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Return u = L z."""
        factor = _factor(shape_params, z.shape[-1])
        return (factor @ z[..., None])[..., 0]

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return L⁻¹ = (I + N)⁻¹ diag(1 / L_ii)."""
        n, log_diagonal = _unit_factor(shape_params, event_size)
        reciprocal = namespace(n).exp(-log_diagonal)
        return inverse_matrix(n, event_size) * reciprocal[..., None, :]

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R = L Lᵀ."""
        factor = _factor(shape_params, event_size)
        return factor @ namespace(factor).swapaxes(factor, -1, -2)

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return L."""
        return _factor(shape_params, event_size)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return scale²."""
        return scale * scale

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Return the exact parameters of Σ: its standard deviations, and x of its correlations.

        sinh x_ij = L_ij / √(Σ_{k=j+1}^{i} L_ik²), with L the factor of the correlation matrix.

        Raises:
            ValueError: Σ is not positive definite.

        """
        stddev, factor = correlation_cholesky(covariance)
        squares = np.cumsum((factor**2)[..., ::-1], axis=-1)[..., ::-1]  # [i, j]: sum over k ≥ j
        beyond = np.concatenate([squares[..., 1:], squares[..., :1]], axis=-1)
        ratio = pack_strict_lower(factor) / np.sqrt(pack_strict_lower(beyond))
        return stddev, np.arcsinh(ratio)

    def shape_bound(self, event_size: int) -> float:
        """Return the bound F on the norm of x (see the class docstring)."""
        return _NORM_LIMIT


def _unit_factor(x: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
    """Return N (packed) and log L_ii for L = diag(L_ii)(I + N).

    N_ij = tanh x_ij Π_{k≥j} cosh x_ik.
    """
    dense = unpack_strict_lower(x, event_size)
    xp, log_cosh = namespace(x), _log_cosh(dense)
    from_here = log_cosh @ constant_like(np.tril(np.ones((event_size, event_size))), dense)
    n = _tanh(x) * xp.exp(pack_strict_lower(from_here))
    return n, -xp.sum(log_cosh, axis=-1)


def _factor(x: Tensor, event_size: int) -> Tensor:
    """Return L (..., d, d), L_ij = tanh x_ij Π_{k<j} sech x_ik."""
    dense = unpack_strict_lower(x, event_size)
    xp, log_cosh = namespace(x), _log_cosh(dense)
    before = log_cosh @ constant_like(np.triu(np.ones((event_size, event_size)), 1), dense)
    identity = constant_like(np.eye(event_size), dense)
    # tanh is 0 above the diagonal and on it; on the diagonal it is replaced by 1.
    return (_tanh(dense) + identity) * xp.exp(-before)


def _log_cosh(x: Tensor) -> Tensor:
    def value(x: Tensor) -> Tensor:
        xp = namespace(x)
        size = xp.abs(x)
        return size + xp.log1p(xp.exp(-2.0 * size)) - float(np.log(2.0))

    return differentiable(value, lambda bar, _, x: bar * _tanh(x), x)


def _tanh(x: Tensor) -> Tensor:
    # Not `ops.tanh`, which turns float64 into float32 on JAX.
    def value(x: Tensor) -> Tensor:
        xp = namespace(x)
        less = xp.expm1(-2.0 * xp.abs(x))
        size = -less / (2.0 + less)
        return xp.where(x >= 0, size, -size)

    def vjp(bar: Tensor, output: Tensor, x: Tensor) -> Tensor:
        xp = namespace(x)
        small = xp.exp(-2.0 * xp.abs(x))
        return bar * 4.0 * small / ((1.0 + small) * (1.0 + small))

    return differentiable(value, vjp, x)
