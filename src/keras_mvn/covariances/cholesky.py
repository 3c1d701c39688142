"""Full covariance through its Cholesky factor."""

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
"""How much a substitution with unconstrained off-diagonals may enlarge u: its cube, which the
gradient meets, is still a float32 number."""


def off_diagonal_limit(event_size: int) -> float:
    """The Frobenius norm of N up to which ‖(I + N)⁻¹‖ ≤ 1e10 is certain.

    Row by row, ‖z‖² grows at most by 1 + ‖Nᵢ‖², so ‖(I + N)⁻¹‖ ≤ (1 + ‖N‖²/(d − 1))^((d − 1)/2).
    """
    rows = max(event_size - 1, 1)
    # As a float32 number, so that no path rounds it otherwise.
    return float(np.float32(np.sqrt(rows * (GROWTH_LIMIT ** (2.0 / rows) - 1.0))))


@final
@register
@dataclass(frozen=True)
class Cholesky(Covariance):
    """Full covariance by its Cholesky factor: Σ = L Lᵀ, L = S (I + N), N strictly lower.

    `scale` are the innovation standard deviations: `scale[i]` is what remains of target i once
    the targets before it are known. The loss solves (I + N) z = u by substitution.

    d + d(d − 1)/2 numbers beside the mean. O(d²) time and memory per row for the likelihood and
    for samples, O(d³) for the dense Σ. Exact for every Σ.

    What a network emits for N is bounded smoothly, N = raw / √(1 + ‖raw‖²/F²) with the Frobenius
    limit F(d) = √((d − 1)(10^(20/(d − 1)) − 1)): 4e3 for d = 4, 71 for 8, 10 for 32, 7.4 for 128.
    Without it, substitution overflows float32 for large d (N = 100 at d = 32). With `adapt` it
    limits only the distance from the data's own N. `PrecisionCholesky` needs no such bound.

    >>> import numpy as np
    >>> scale, n = Cholesky().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> scale.round(4), n.round(4)
    (array([2.    , 2.5981]), array([0.5774]))
    """

    triangular: ClassVar[bool] = True
    fused_form: ClassVar[str | None] = "cholesky"

    def shape_size(self, event_size: int) -> int:
        """d(d − 1)/2: the strict lower triangle N, row by row."""
        return event_size * (event_size - 1) // 2

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Solve (I + N) z = u; half_log_det = 0."""
        return _unit_lower.solve(shape_params, u), _unit_lower.zero_half_log_det(u)

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """u_bar = (I + N)⁻ᵀ z_bar, N_bar = −tril(u_bar zᵀ, −1)."""
        u_bar = _unit_lower.solve(shape_params, z_bar, transposed=True)
        return -_unit_lower.outer_strict_lower(u_bar, z), u_bar

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """u = (I + N) z."""
        return _unit_lower.multiply(shape_params, z)

    def inverse_fisher(
        self, scale: Tensor, shape_params: Tensor, scale_bar: Tensor, shape_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """In E = L⁻¹ dL the Fisher metric is Σ_{i>j} E²ᵢⱼ + 2 Σ E²ᵢᵢ: halve the diagonal there."""
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        bar = _unit_lower.factor_bar(shape_params, shape_bar, scale * scale_bar)
        tangent = a @ _unit_lower.half_diagonal(namespace(a).swapaxes(a, -1, -2) @ bar)
        diagonal_dot = diagonal(tangent)
        return scale * diagonal_dot, _unit_lower.unit_tangent(shape_params, tangent, diagonal_dot)

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """(I + N)⁻¹."""
        return _unit_lower.inverse_matrix(shape_params, event_size)

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """R = (I + N)(I + N)ᵀ."""
        a = _unit_lower.matrix(shape_params, event_size)
        return a @ namespace(a).swapaxes(a, -1, -2)

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """I + N."""
        return _unit_lower.matrix(shape_params, event_size)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """scale² times the row sums of (I + N)², O(d²)."""
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        return scale * scale * _unit_lower.row_squares(a)

    def recombine(self, scale: Tensor, shape_params: Tensor, lower: Array) -> tuple[Tensor, Tensor]:
        """L C = S (I + N) C, whose diagonal is that of S and C."""
        root = np.diagonal(lower)
        a = _unit_lower.matrix(shape_params, scale.shape[-1])
        n = a @ constant_like(lower, a) / constant_like(root[:, None], a)
        return scale * constant_like(root, scale), pack_strict_lower(n)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Exact, by the Cholesky factor of Σ."""
        return cholesky_parameters(covariance)

    def shape_bound(self, event_size: int) -> float:
        """The bound of the class docstring for N."""
        return off_diagonal_limit(event_size)

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """From L itself, of which only the lower triangle is read: s = L_ii, N_ij = L_ij / s_i."""
        scale = diagonal(matrix)
        return scale, pack_strict_lower(matrix / scale[..., :, None])

    def raw_from_matrix(self, matrix: Tensor) -> Tensor:
        """The diagonal and the strict lower triangle of an unconstrained matrix."""
        return namespace(matrix).concatenate([diagonal(matrix), pack_strict_lower(matrix)], axis=-1)
