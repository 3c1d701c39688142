"""Independent targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from keras_mvn._core.numeric import constant_like, namespace, split_last_axis
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances._unit_lower import zero_half_log_det
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.moments import Moments

__all__ = ["Diagonal"]


@final
@register
@dataclass(frozen=True)
class Diagonal(Covariance):
    """Independent targets: Σ = diag(scale²), R = I.

    `scale` are the standard deviations. d numbers beside the mean, O(d) time and memory. Of a
    full Σ, `from_covariance` keeps the variances.

    >>> import numpy as np
    >>> Diagonal().from_covariance(np.array([[4.0, 1.0], [1.0, 9.0]]))[0]
    array([2., 3.])
    """

    def shape_size(self, event_size: int) -> int:
        """0: a diagonal covariance has no shape."""
        return 0

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = u."""
        return u, zero_half_log_det(u)

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What is missing drops out."""
        return u * observed, zero_half_log_det(u)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """u = z."""
        return z

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """R = I."""
        xp = namespace(shape_params)
        # The batch axes of a tensor without columns, kept without asking for their lengths.
        zero = xp.sum(shape_params, axis=-1)[..., None, None]
        return zero + constant_like(np.eye(event_size), shape_params)

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor:
        """No factors: V is (..., d, 0)."""
        return split_last_axis(shape_params, event_size, 0)

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The scales. No sum of empty shapes, which not every format can hold."""
        return origin_scale * scale, shape_params

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Standard deviations; correlations are dropped."""
        scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        return scale, np.zeros((*scale.shape[:-1], 0))

    def moments_rank(self, event_size: int) -> int | None:
        """0: standard deviations are enough."""
        return 0

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """The standard deviations."""
        return moments.stddev, moments.stddev[:0]
