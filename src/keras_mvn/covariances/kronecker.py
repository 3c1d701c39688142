"""Kronecker-structured covariance for a table of targets: rows times columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.numeric import merge_last_axes, namespace, split_last_axis
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import _composed
from keras_mvn.covariances._from_dense import cholesky
from keras_mvn.covariances._lookup import CovarianceLike, get
from keras_mvn.covariances.base import Covariance, register

__all__ = ["Kronecker"]

MAX_SWEEPS = 200


@final
@register
@dataclass(frozen=True)
class Kronecker(Covariance):
    """Kronecker covariance Σ = A ⊗ B of a p × q table of targets, flattened row by row.

    The matrix normal distribution: Cov(Y_ij, Y_kl) = A_ik B_jl. Suited to tables such as
    time × variable or station × hour: A gives the covariance between rows, whichever the column,
    and B that between columns. A and B each have their own structure, with scales and shape:
    Σ = S (R_A ⊗ R_B) S with S = diag(s_A) ⊗ diag(s_B). Z = K_A U K_Bᵀ whitens the table U of scaled
    residuals; no d × d matrix is formed in training or sampling.

    The network emits the numbers of both structures, (p + k_A) + (q + k_B) besides the mean, one of
    which is redundant (A may be doubled and B halved); y_pred holds all d = p q scales. Per row:
    O(p² q + p q²) time, O(p² + q² + p q) memory; incomplete rows use the dense K_A ⊗ K_B.

    Args:
        shape: (p, q), the numbers of rows and columns of the table.
        rows: the structure of A, or its name. "cholesky" bounds the growth of each factor only, so
            extreme outputs of both at once may overflow float32; the default does not.
        columns: the structure of B, or its name.

    Raises:
        ValueError: `shape` is not two integers ≥ 1, or a structure is unknown; when used, d ≠ p q.

    Source: Dawid, "Some matrix-variate distribution theory", Biometrika 68 (1981); Dutilleul, "The
    MLE algorithm for the matrix normal distribution", J. Stat. Comput. Simul. 64 (1999).

    >>> import numpy as np
    >>> a, b = np.array([[1.0, 0.5], [0.5, 1.0]]), np.diag([1.0, 4.0, 9.0])
    >>> structure = Kronecker(shape=(2, 3), columns="diagonal")
    >>> parameters = structure.from_covariance(np.kron(a, b))
    >>> np.allclose(structure.covariance(*parameters), np.kron(a, b))
    True

    """

    shape: tuple[int, int]
    rows: CovarianceLike = "precision_cholesky"
    columns: CovarianceLike = "precision_cholesky"

    def __post_init__(self) -> None:
        sizes = tuple(self.shape) if isinstance(self.shape, (tuple, list)) else ()
        if len(sizes) != 2:
            raise ValueError(
                f"shape={self.shape!r} must be (rows, columns), the size of the table of targets."
            )
        for size, name in zip(sizes, ("shape[0]", "shape[1]"), strict=True):
            whole(size, name, "the length of one side of the table of targets", 1)
        object.__setattr__(self, "shape", sizes)
        for name, size in zip(("rows", "columns"), sizes, strict=True):
            factor = get(getattr(self, name))
            factor.require(size)
            object.__setattr__(self, name, factor)

    @property
    def _factors(self) -> tuple[Covariance, Covariance]:
        return get(self.rows), get(self.columns)

    @property
    def _both(self) -> _composed.Parts:
        return list(zip(self._factors, self.shape, strict=True))

    @property
    def event_size(self) -> int:
        """The number of targets, p q."""
        return self.shape[0] * self.shape[1]

    @property
    def triangular(self) -> bool:  # type: ignore[override]
        """Whether both structures are triangular."""
        return all(factor.triangular for factor in self._factors)

    def shape_size(self, event_size: int) -> int:
        """Return k_A + k_B."""
        self.require(event_size)
        return sum(factor.shape_size(size) for factor, size in self._both)

    def raw_size(self, event_size: int) -> int:
        """Return the number of scales of A and B plus that of shape parameters of A and B."""
        self.require(event_size)
        return _composed.raw_size(self._both)

    def scale_raw_size(self, event_size: int) -> int | None:
        """Return p + q, or None if one of the structures does not separate its scales."""
        return _composed.scale_raw_size(self._both)

    @property
    def wire(self) -> Covariance:
        """A `Kronecker` of the wire structures of A and B."""
        a, b = self._factors
        return Kronecker(self.shape, a.wire, b.wire)

    def _split(self, shape_params: Tensor) -> tuple[Tensor, Tensor]:
        k = self._factors[0].shape_size(self.shape[0])
        return shape_params[..., :k], shape_params[..., k:]

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return Z = K_A U K_Bᵀ and half_log_det = q half_log_det_A + p half_log_det_B."""
        (a, b), (p, q) = self._factors, self.shape
        shape_a, shape_b = self._split(shape_params)
        xp, table = namespace(u), split_last_axis(u, p, q)
        z = a.whitening_matrix(shape_a, p) @ table
        z = z @ xp.swapaxes(b.whitening_matrix(shape_b, q), -1, -2)
        _, half_log_det_a = a.whiten_with_vjp(shape_a, xp.zeros_like(table[..., :, 0]))
        _, half_log_det_b = b.whiten_with_vjp(shape_b, xp.zeros_like(table[..., 0, :]))
        return merge_last_axes(z), q * half_log_det_a + p * half_log_det_b

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Return U = K_A⁻¹ Z K_B⁻ᵀ."""
        (a, b), (p, q) = self._factors, self.shape
        shape_a, shape_b = self._split(shape_params)
        table = _each_row(b.color, shape_b, split_last_axis(z, p, q))
        swap = namespace(z).swapaxes
        return merge_last_axes(swap(_each_row(a.color, shape_a, swap(table, -1, -2)), -1, -2))

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return K_A ⊗ K_B, dense."""
        self.require(event_size)
        return self._product(shape_params, lambda factor, s, n: factor.whitening_matrix(s, n))

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return F_A ⊗ F_B, dense."""
        self.require(event_size)
        return self._product(shape_params, lambda factor, s, n: factor.coloring_matrix(s, n))

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R_A ⊗ R_B."""
        self.require(event_size)
        return self._product(shape_params, lambda factor, s, n: factor.shape_matrix(s, n))

    def _product(
        self, shape_params: Tensor, matrix: Callable[[Covariance, Tensor, int], Tensor]
    ) -> Tensor:
        left, right = (
            matrix(factor, s, n)
            for (factor, n), s in zip(self._both, self._split(shape_params), strict=True)
        )
        xp = namespace(left, right)
        product = left[..., :, None, :, None] * right[..., None, :, None, :]
        return xp.reshape(product, (*xp.shape(product)[:-4], self.event_size, self.event_size))

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return scale² diag(R_A) ⊗ diag(R_B)."""
        table = split_last_axis(scale, *self.shape)
        (a, b), (shape_a, shape_b) = self._factors, self._split(shape_params)
        xp = namespace(scale)
        left = a.variance(xp.ones_like(table[..., :, 0]), shape_a)
        right = b.variance(xp.ones_like(table[..., 0, :]), shape_b)
        return scale * scale * _outer(left, right)

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """Constrain A and B separately; scale = s_A ⊗ s_B."""
        self.require(event_size)
        raw_a, raw_b = _composed.split_raw(raw, self._both)
        scale_a, shape_a = self._factors[0].constrain(raw_a, self.shape[0])
        scale_b, shape_b = self._factors[1].constrain(raw_b, self.shape[1])
        shape_params = namespace(raw).concatenate([shape_a, shape_b], axis=-1)
        return _outer(scale_a, scale_b), shape_params

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return raw numbers that `constrain` maps to these.

        s_A and s_B are chosen to have equal geometric means.
        """
        raw = [
            factor.unconstrain(s, shape)
            for factor, s, shape in zip(
                self._factors, self._separate(scale), self._split(shape_params), strict=True
            )
        ]
        return _composed.join_raw(raw, self._both)

    def _separate(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return s_A and s_B with scale = s_A ⊗ s_B, or the closest ones in logarithms."""
        xp = namespace(scale)
        logs = xp.log(split_last_axis(scale, *self.shape))
        # Not `mean`, which turns float64 into float32 on PyTorch.
        rows, columns = xp.sum(logs, axis=-1) / self.shape[1], xp.sum(logs, axis=-2) / self.shape[0]
        half = 0.5 * xp.sum(rows, axis=-1, keepdims=True) / self.shape[0]
        return xp.exp(rows - half), xp.exp(columns - half)

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Relocate A and B separately."""
        moved = [
            factor.relocate(*arguments)
            for factor, *arguments in zip(
                self._factors,
                self._separate(scale),
                self._split(shape_params),
                self._separate(origin_scale),
                self._split(origin_shape),
                strict=True,
            )
        ]
        (scale_a, shape_a), (scale_b, shape_b) = moved
        return _outer(scale_a, scale_b), namespace(scale).concatenate([shape_a, shape_b], axis=-1)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Fit A ⊗ B by maximum likelihood: the closest in Kullback–Leibler divergence.

        The "flip-flop" algorithm: in turn, each factor is set to its optimum given the other,
        A_ij = tr(B⁻¹ Σ_ij) / q with Σ_ij the blocks of Σ. Exact after one sweep if Σ is a Kronecker
        product.

        Raises:
            ValueError: Σ is not positive definite.

        """
        (p, q), batch = self.shape, covariance.shape[:-2]
        self.require(covariance.shape[-1])
        with np.errstate(invalid="ignore"):  # `cholesky` rejects invalid results
            stddev = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
            unit_a, unit_b = self._separate(stddev)
            unit = _outer(unit_a, unit_b)
            relative = covariance / unit[..., :, None] / unit[..., None, :]
        cholesky(relative, "covariance")
        table = relative.reshape(*batch, p, q, p, q)
        a, b = np.broadcast_to(np.eye(p), (*batch, p, p)), np.zeros((*batch, q, q))
        for _ in range(MAX_SWEEPS):
            previous = b
            b = np.einsum("...ik,...kjil->...jl", np.linalg.inv(a), table) / p
            a = np.einsum("...jl,...iljk->...ik", np.linalg.inv(b), table.swapaxes(-1, -2)) / q
            if np.abs(b - previous).max() <= 1e-14 * np.abs(b).max():
                break
        scale_a, shape_a = self._factors[0].from_covariance(a)
        scale_b, shape_b = self._factors[1].from_covariance(b)
        scale = _outer(unit_a * scale_a, unit_b * scale_b)
        return scale, np.concatenate([shape_a, shape_b], axis=-1)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Return left ⊗ right: (..., p), (..., q) → (..., p q)."""
    return merge_last_axes(left[..., :, None] * right[..., None, :])


def _each_row(
    color: Callable[[Tensor, Tensor], Tensor], shape_params: Tensor, table: Tensor
) -> Tensor:
    """Apply a structure's `color` to every row of a table (..., m, n)."""
    return color(shape_params[..., None, :] + 0.0 * table[..., :1], table)
