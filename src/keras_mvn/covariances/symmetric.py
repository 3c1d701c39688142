"""Full covariance, parametrized by a symmetric matrix through a matrix exponential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import _unit_lower
from keras_mvn.covariances._solver_free import cholesky
from keras_mvn.covariances._spectral import LOG_EIGENVALUE_LIMIT, spectral_cholesky
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.cholesky import Cholesky
from keras_mvn.covariances.packing import (
    diagonal,
    pack_lower,
    pack_strict_lower,
    unpack_lower,
)

__all__ = ["Symmetric"]

_CHOLESKY = Cholesky()


@final
@register
@dataclass(frozen=True)
class Symmetric(Covariance):
    """Full covariance as a smooth function of any real symmetric matrix H: Σ = exp(g(H)).

    With H = U diag(λ) Uᵀ, Σ = U diag(exp g(λ)) Uᵀ, g(λ) = λ/√(1 + λ²/b²), b = ½ log 10⁶. Near
    H = 0 this is the matrix exponential. Σ is always positive definite, with eigenvalues between
    1e-3 and 1e3 (a condition number below 1e6) in the units that `adapt` measured. Unlike the
    triangular structures, it treats all targets alike: their order does not matter.

    The network emits d(d + 1)/2 numbers, the lower triangle of H row by row. y_pred is that of
    `Cholesky`, so loss, metrics and distribution cost the same as there. The head also needs an
    eigendecomposition and a QR factorization, O(d³) per row with a large constant, and cannot be
    exported to formats without them. After `adapt`, Σ = L₀ exp(g(H)) L₀ᵀ with L₀ from the data.

    >>> import numpy as np
    >>> scale, n = Symmetric().constrain(np.zeros((1, 3)), event_size=2)
    >>> Symmetric().shape_matrix(n, 2)[0]
    array([[1., 0.],
           [0., 1.]])
    """

    triangular: ClassVar[bool] = True

    def shape_size(self, event_size: int) -> int:
        """Return d(d − 1)/2, as `Cholesky` does."""
        return _CHOLESKY.shape_size(event_size)

    def raw_size(self, event_size: int) -> int:
        """Return d(d + 1)/2, the size of the lower triangle of H."""
        return event_size * (event_size + 1) // 2

    def scale_raw_size(self, event_size: int) -> int | None:
        """Return None: every entry of H affects both scale and shape."""
        return None

    @property
    def wire(self) -> Covariance:
        """The structure `Cholesky`, whose y_pred this one shares."""
        return _CHOLESKY

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Whiten as `Cholesky` does."""
        return _CHOLESKY.whiten(shape_params, u)

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of `whiten`, as `Cholesky` does."""
        return _CHOLESKY.whiten_vjp(shape_params, u, z, z_bar, half_log_det_bar)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Color as `Cholesky` does."""
        return _CHOLESKY.color(shape_params, z)

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return the whitening matrix, as `Cholesky` does."""
        return _CHOLESKY.whitening_matrix(shape_params, event_size)

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return the shape matrix R, as `Cholesky` does."""
        return _CHOLESKY.shape_matrix(shape_params, event_size)

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return the coloring matrix, as `Cholesky` does."""
        return _CHOLESKY.coloring_matrix(shape_params, event_size)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the diagonal of Σ, as `Cholesky` does."""
        return _CHOLESKY.variance(scale, shape_params)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Return the exact parameters of Σ, as `Cholesky` does."""
        return _CHOLESKY.from_covariance(covariance)

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """Apply the spectral map to the matrix H whose lower triangle is `raw`."""
        lower = unpack_lower(raw, event_size)
        xp = namespace(lower)
        strict = xp.tril(lower, -1)
        h = lower + xp.swapaxes(strict, -1, -2)
        return _CHOLESKY.from_matrix(spectral_cholesky(h))

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the lower triangle of H; NaN if an eigenvalue of Σ is outside (1e-3, 1e3)."""
        xp = namespace(scale, shape_params)
        eigenvalues, vectors = xp.linalg.eigh(self.covariance(scale, shape_params))
        g = xp.log(eigenvalues)
        ratio = g / LOG_EIGENVALUE_LIMIT
        raw = g / xp.sqrt(1.0 - ratio * ratio)
        return pack_lower((vectors * raw[..., None, :]) @ xp.swapaxes(vectors, -1, -2))

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Apply the congruence Σ = L₀ Σ' L₀ᵀ, so the map stays spectral in the whitened targets."""
        d = scale.shape[-1]
        origin = _unit_lower.matrix(origin_shape, d)
        # L₀ S (I + N) = S₀ S · S⁻¹ (I + N₀) S (I + N)
        moved = origin * scale[..., None, :] / scale[..., :, None]
        product = moved @ _unit_lower.matrix(shape_params, d)
        return origin_scale * scale, pack_strict_lower(product)

    def from_matrix(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Read Σ itself, symmetrized; it must be positive definite (otherwise, use `from_raw`)."""
        xp = namespace(matrix)
        covariance = _symmetrized(matrix)
        stddev = xp.sqrt(diagonal(covariance))
        correlation = covariance / stddev[..., :, None] / stddev[..., None, :]
        scale, n = _CHOLESKY.from_matrix(cholesky(correlation))
        return stddev * scale, n

    def raw_from_matrix(self, matrix: Tensor) -> Tensor:
        """Return the lower triangle of (A + Aᵀ)/2, where A is `matrix`."""
        return pack_lower(_symmetrized(matrix))


def _symmetrized(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + namespace(matrix).swapaxes(matrix, -1, -2))
