"""Diagonal covariance for independent targets."""

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
    """Diagonal covariance for independent targets: Σ = diag(scale²), R = I.

    `scale` holds the standard deviations. The network emits d numbers besides the mean; O(d) time
    and memory. `from_covariance` keeps only the variances of a full Σ.

    >>> import numpy as np
    >>> Diagonal().from_covariance(np.array([[4.0, 1.0], [1.0, 9.0]]))[0]
    array([2., 3.])
    """

    def shape_size(self, event_size: int) -> int:
        """Return 0: a diagonal covariance has no shape parameters."""
        return 0

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return u unchanged, and half_log_det = 0."""
        return u, zero_half_log_det(u)

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return u with zeros for missing targets, and half_log_det = 0."""
        return u * observed, zero_half_log_det(u)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Return z unchanged."""
        return z

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R = I."""
        xp = namespace(shape_params)
        # Keeps the batch axes of a tensor without columns, without querying their lengths.
        zero = xp.sum(shape_params, axis=-1)[..., None, None]
        return zero + constant_like(np.eye(event_size), shape_params)

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return an empty V (..., d, 0): there are no factors."""
        return split_last_axis(shape_params, event_size, 0)

    def relocate(
        self, scale: Tensor, shape_params: Tensor, origin_scale: Tensor, origin_shape: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rescale by origin_scale; sums of empty shape_params would break some export formats."""
        return origin_scale * scale, shape_params

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Return the standard deviations; correlations are dropped."""
        scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        return scale, np.zeros((*scale.shape[:-1], 0))

    def moments_rank(self, event_size: int) -> int | None:
        """Return 0: only standard deviations are needed."""
        return 0

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """Return the standard deviations."""
        return moments.stddev, moments.stddev[:0]
