"""Independent targets with one common scale."""

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
    """Independent targets whose scales rise and fall together: Σ = σ² diag(unit²), R = I.

    One number σ beside the mean, in the units that `MultivariateNormalHead.adapt` measured (1
    without `adapt`): "isotropic" in adapted units, so that it does not depend on whether a target
    is in meters or millimeters. O(d) time and memory. y_pred is that of `Diagonal`, with all d
    scales written out; `unconstrain` reads the geometric mean of the scales.
    """

    def shape_size(self, event_size: int) -> int:
        """0: an isotropic covariance has no shape."""
        return 0

    def raw_size(self, event_size: int) -> int:
        """1: the common scale."""
        return 1

    def scale_raw_size(self, event_size: int) -> int | None:
        """1: all there is."""
        return 1

    @property
    def wire(self) -> Covariance:
        """`Diagonal`: y_pred holds d scales."""
        return _DIAGONAL

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = u."""
        return _DIAGONAL.whiten(shape_params, u)

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is missing drops out."""
        return _DIAGONAL.whiten_observed(shape_params, u, observed)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """u = z."""
        return _DIAGONAL.color(shape_params, z)

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """R = I."""
        return _DIAGONAL.shape_matrix(shape_params, event_size)

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor:
        """No factors: V is (..., d, 0)."""
        return _DIAGONAL.loadings(shape_params, event_size)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Standard deviations: they become the units in which the head is isotropic."""
        return _DIAGONAL.from_covariance(covariance)

    def moments_rank(self, event_size: int) -> int | None:
        """0: standard deviations are enough."""
        return 0

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """The standard deviations."""
        return _DIAGONAL.from_moments(moments)

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `Diagonal`."""
        return _DIAGONAL.relocate(scale, shape_params, origin_scale, origin_shape)

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """One raw number (..., 1) → d equal scales."""
        xp = namespace(raw)
        scale = xp.concatenate([links.positive(raw)] * event_size, axis=-1)
        return scale, raw[..., :0]

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """The raw number of the scales' geometric mean."""
        xp = namespace(scale)
        return links.positive_inverse(xp.exp(xp.mean(xp.log(scale), axis=-1, keepdims=True)))
