"""Full covariance, parametrized by the modified Cholesky factor of the precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from keras_mvn._core.numeric import constant_like, namespace, solve_lower
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import _unit_lower
from keras_mvn.covariances._from_dense import cholesky_parameters, precision_parameters
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.packing import diagonal, pack_strict_lower

__all__ = ["PrecisionCholesky"]


@final
@register
@dataclass(frozen=True)
class PrecisionCholesky(Covariance):
    """Full covariance by its precision: Σ⁻¹ = Pᵀ P, P = (I + N) S⁻¹, N strictly lower.

    The modified Cholesky decomposition: row i of −N holds the coefficients of the regression of
    target i on the targets before it, and `scale[i]` the standard deviation of its residual. The
    loss needs no solve: z = (I + N) u is a product, which stays finite for any N. (For an extreme
    N, such as 1000 in every entry at d = 8, the dense Σ overflows float64, but the density does
    not.)

    The network emits d + d(d − 1)/2 numbers besides the mean. O(d²) time and memory per row for
    the likelihood; O(d²) by substitution for samples; O(d³) for the dense Σ. Exact for every Σ.

    Source: Pourahmadi, "Joint mean-covariance models with applications to longitudinal data",
    Biometrika 86 (1999).

    >>> import numpy as np
    >>> scale, n = PrecisionCholesky().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> scale.round(4), n  # sd of y0; sd of y1 given y0; minus the slope of y1 on y0, in scales
    (array([2.    , 2.5981]), array([-0.57735027]))
    """

    triangular: ClassVar[bool] = True
    fused_form: ClassVar[str | None] = "precision_cholesky"

    def shape_size(self, event_size: int) -> int:
        """Return d(d − 1)/2, the size of the strict lower triangle N, stored row by row."""
        return event_size * (event_size - 1) // 2

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = (I + N) u and half_log_det = 0."""
        return _unit_lower.multiply(shape_params, u), _unit_lower.zero_half_log_det(u)

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return N_bar = tril(z_bar uᵀ, −1) and u_bar = (I + N)ᵀ z_bar."""
        u_bar = _unit_lower.multiply(shape_params, z_bar, transposed=True)
        return _unit_lower.outer_strict_lower(z_bar, u), u_bar

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Solve (I + N) u = z for u."""
        return _unit_lower.solve(shape_params, z)

    def inverse_fisher(
        self, scale: Tensor, shape_params: Tensor, scale_bar: Tensor, shape_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the natural gradient, which halves the diagonal in the coordinates E = dP P⁻¹.

        The Fisher metric is Σ_{i>j} E²ᵢⱼ + 2 Σ E²ᵢᵢ there.
        """
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        bar = _unit_lower.factor_bar(shape_params, shape_bar, -scale * scale_bar, columns=True)
        tangent = _unit_lower.half_diagonal(bar @ namespace(a).swapaxes(a, -1, -2)) @ a
        diagonal_dot = diagonal(tangent)
        dot = _unit_lower.unit_tangent(shape_params, tangent, diagonal_dot, columns=True)
        return -scale * diagonal_dot, dot

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return I + N."""
        return _unit_lower.matrix(shape_params, event_size)

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R = (I + N)⁻¹ (I + N)⁻ᵀ."""
        inverse = _unit_lower.inverse_matrix(shape_params, event_size)
        return inverse @ namespace(inverse).swapaxes(inverse, -1, -2)

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return (I + N)⁻¹."""
        return _unit_lower.inverse_matrix(shape_params, event_size)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return scale² times the row sums of the squared entries of (I + N)⁻¹."""
        inverse = _unit_lower.inverse_matrix(shape_params, scale.shape[-1])
        return scale * scale * _unit_lower.row_squares(inverse)

    @property
    def recombined(self) -> Covariance:
        """The structure itself, because a product of lower triangular factors is one too."""
        return self

    def recombine(self, scale: Tensor, shape_params: Tensor, lower: Array) -> tuple[Tensor, Tensor]:
        """Return the parameters of P' = C⁻¹ P = C⁻¹ (I + N) S⁻¹; only the constant is inverted."""
        inverse = solve_lower(lower, np.eye(len(lower)))
        root = np.diagonal(inverse)
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        n = constant_like(inverse, a) @ a / constant_like(root, a)
        return scale / constant_like(root, scale), pack_strict_lower(n)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Return the exact parameters of Σ, from its Cholesky factor: P = L⁻¹."""
        scale, n = cholesky_parameters(covariance)
        inverse = _unit_lower.inverse_matrix(n, scale.shape[-1])
        return scale, pack_strict_lower(inverse)

    def from_precision(self, precision: Array) -> tuple[Array, Array]:
        """Return scale and shape_params of Σ⁻¹ (..., d, d), float64 NumPy, without inverting it."""
        return precision_parameters(precision)

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Read P itself, of which only the lower triangle is used: s = 1/P_jj, N_ij = P_ij s_j."""
        scale = 1.0 / diagonal(matrix)
        return scale, pack_strict_lower(matrix * scale[..., None, :])

    def raw_from_matrix(self, matrix: Tensor) -> Tensor:
        """Return the diagonal and the strict lower triangle of an unconstrained matrix."""
        return namespace(matrix).concatenate([diagonal(matrix), pack_strict_lower(matrix)], axis=-1)
