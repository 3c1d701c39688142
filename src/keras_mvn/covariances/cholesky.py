"""Full covariance, parametrized by its Cholesky factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from keras_mvn._core.numeric import constant_like, namespace
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import _unit_lower
from keras_mvn.covariances._from_dense import cholesky_parameters
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.packing import diagonal, pack_strict_lower

__all__ = ["Cholesky", "off_diagonal_limit"]

GROWTH_LIMIT = 1e10
"""Largest factor by which substitution with unconstrained off-diagonals may enlarge u.

The gradient involves its cube, which float32 can still represent.
"""


def off_diagonal_limit(event_size: int) -> float:
    """Return the Frobenius norm of N up to which ‖(I + N)⁻¹‖ ≤ 1e10 is guaranteed.

    Each row multiplies ‖z‖² by at most 1 + ‖Nᵢ‖², so ‖(I + N)⁻¹‖ ≤ (1 + ‖N‖²/(d − 1))^((d − 1)/2).
    """
    rows = max(event_size - 1, 1)
    # Rounded to float32, so that every code path uses the same value.
    return float(np.float32(np.sqrt(rows * (GROWTH_LIMIT ** (2.0 / rows) - 1.0))))


@final
@register
@dataclass(frozen=True)
class Cholesky(Covariance):
    """Full covariance by its Cholesky factor: Σ = L Lᵀ, L = S (I + N), N strictly lower.

    `scale` holds the innovation standard deviations: `scale[i]` is the standard deviation of
    target i given the targets before it. The loss solves (I + N) z = u by substitution.

    The network emits d + d(d − 1)/2 numbers besides the mean. O(d²) time and memory per row for the
    likelihood and for samples, O(d³) for the dense Σ. Exact for every Σ.

    The raw output for N is bounded smoothly, N = raw / √(1 + ‖raw‖²/F²), with the Frobenius limit
    F(d) = √((d − 1)(10^(20/(d − 1)) − 1)): 4e3 for d = 4, 71 for 8, 10 for 32, 7.4 for 128.
    Without it, substitution overflows float32 for large d (N = 100 at d = 32). After `adapt`, it
    limits only the distance from the data's own N. `PrecisionCholesky` needs no such bound.

    >>> import numpy as np
    >>> scale, n = Cholesky().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> scale.round(4), n.round(4)
    (array([2.    , 2.5981]), array([0.5774]))
    """

    triangular: ClassVar[bool] = True
    fused_form: ClassVar[str | None] = "cholesky"

    def shape_size(self, event_size: int) -> int:
        """Return d(d − 1)/2, the size of the strict lower triangle N, stored row by row."""
        return event_size * (event_size - 1) // 2

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Solve (I + N) z = u for z; half_log_det = 0."""
        return _unit_lower.solve(shape_params, u), _unit_lower.zero_half_log_det(u)

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return N_bar = −tril(u_bar zᵀ, −1) and u_bar = (I + N)⁻ᵀ z_bar."""
        u_bar = _unit_lower.solve(shape_params, z_bar, transposed=True)
        return -_unit_lower.outer_strict_lower(u_bar, z), u_bar

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Return u = (I + N) z."""
        return _unit_lower.multiply(shape_params, z)

    def inverse_fisher(
        self, scale: Tensor, shape_params: Tensor, scale_bar: Tensor, shape_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the natural gradient, which halves the diagonal in the coordinates E = L⁻¹ dL.

        The Fisher metric is Σ_{i>j} E²ᵢⱼ + 2 Σ E²ᵢᵢ there.
        """
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        bar = _unit_lower.factor_bar(shape_params, shape_bar, scale * scale_bar)
        tangent = a @ _unit_lower.half_diagonal(namespace(a).swapaxes(a, -1, -2) @ bar)
        diagonal_dot = diagonal(tangent)
        return scale * diagonal_dot, _unit_lower.unit_tangent(shape_params, tangent, diagonal_dot)

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return (I + N)⁻¹."""
        return _unit_lower.inverse_matrix(shape_params, event_size)

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R = (I + N)(I + N)ᵀ."""
        a = _unit_lower.matrix(shape_params, event_size)
        return a @ namespace(a).swapaxes(a, -1, -2)

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return I + N."""
        return _unit_lower.matrix(shape_params, event_size)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return scale² times the row sums of the squared entries of I + N, in O(d²)."""
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        return scale * scale * _unit_lower.row_squares(a)

    def recombine(self, scale: Tensor, shape_params: Tensor, lower: Array) -> tuple[Tensor, Tensor]:
        """Return the parameters of L C = S (I + N) C, whose diagonal is diag(S) diag(C)."""
        root = np.diagonal(lower)
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        n = a @ constant_like(lower, a) / constant_like(root[:, None], a)
        return scale * constant_like(root, scale), pack_strict_lower(n)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Return the exact parameters of Σ, from its Cholesky factor."""
        return cholesky_parameters(covariance)

    def shape_bound(self, event_size: int) -> float:
        """Return the bound F(d) on the norm of N (see the class docstring)."""
        return off_diagonal_limit(event_size)

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Read L itself, of which only the lower triangle is used: s = L_ii, N_ij = L_ij / s_i."""
        scale = diagonal(matrix)
        return scale, pack_strict_lower(matrix / scale[..., :, None])

    def raw_from_matrix(self, matrix: Tensor) -> Tensor:
        """Return the diagonal and the strict lower triangle of an unconstrained matrix."""
        return namespace(matrix).concatenate([diagonal(matrix), pack_strict_lower(matrix)], axis=-1)
