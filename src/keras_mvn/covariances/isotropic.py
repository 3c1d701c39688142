"""Isotropic covariance: independent targets with one common scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import links
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.diagonal import Diagonal
from keras_mvn.covariances.moments import Moments

__all__ = ["Isotropic"]

_DIAGONAL = Diagonal()


@final
@register
@dataclass(frozen=True)
class Isotropic(Covariance):
    """Independent targets whose scales vary together: Σ = σ² diag(unit²), R = I.

    The network emits one number for σ besides the mean, in the units that
    `MultivariateNormalHead.adapt` measured (1 without `adapt`). Σ is isotropic in adapted units, so
    it does not matter whether a target is in meters or millimeters. O(d) time and memory. y_pred is
    that of `Diagonal`, with all d scales; `unconstrain` uses the geometric mean of the scales.
    """

    def shape_size(self, event_size: int) -> int:
        """Return 0: an isotropic covariance has no shape parameters."""
        return 0

    def raw_size(self, event_size: int) -> int:
        """Return 1, for the common scale."""
        return 1

    def scale_raw_size(self, event_size: int) -> int | None:
        """Return 1, for the only raw number."""
        return 1

    @property
    def wire(self) -> Covariance:
        """The structure `Diagonal`, because y_pred holds d scales."""
        return _DIAGONAL

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return u unchanged, and half_log_det = 0."""
        return _DIAGONAL.whiten(shape_params, u)

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return u with zeros for missing targets, and half_log_det = 0."""
        return _DIAGONAL.whiten_observed(shape_params, u, observed)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Return z unchanged."""
        return _DIAGONAL.color(shape_params, z)

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R = I."""
        return _DIAGONAL.shape_matrix(shape_params, event_size)

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return an empty V (..., d, 0): there are no factors."""
        return _DIAGONAL.loadings(shape_params, event_size)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Return the standard deviations, which become the units in which the head is isotropic."""
        return _DIAGONAL.from_covariance(covariance)

    def moments_rank(self, event_size: int) -> int | None:
        """Return 0: only standard deviations are needed."""
        return 0

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """Return the standard deviations."""
        return _DIAGONAL.from_moments(moments)

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rescale as `Diagonal` does."""
        return _DIAGONAL.relocate(scale, shape_params, origin_scale, origin_shape)

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """Map one raw number (..., 1) to d equal scales."""
        xp = namespace(raw)
        scale = xp.concatenate([links.positive(raw)] * event_size, axis=-1)
        return scale, raw[..., :0]

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return the raw number for the geometric mean of the scales."""
        xp = namespace(scale)
        return links.positive_inverse(xp.exp(xp.mean(xp.log(scale), axis=-1, keepdims=True)))
