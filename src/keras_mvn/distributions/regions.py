"""Joint regions: ellipsoids that contain all targets at once with a given probability."""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import finite
from keras_mvn._core.targets import in_order
from keras_mvn._core.types import Array
from keras_mvn.distributions._batch import Batch
from keras_mvn.distributions._elliptical import Elliptical

__all__ = ["Ellipsoid"]


@final
class Ellipsoid(Batch):
    """A batch of ellipsoids (y − μ)ᵀ Σ⁻¹ (y − μ) ≤ c around predicted locations.

    Made by `region(level)`, where c gives the region that probability, or by a conformal
    calibration, which determines c from data.

    Args:
        distribution: a `MultivariateNormal` or `MultivariateStudentT`, whose location μ and scale
            matrix Σ give center and shape.
        squared_radius: c ≥ 0, one number or one per distribution (...); infinite for all of space.

    Raises:
        ValueError: c is negative or NaN, or is not one number per distribution.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> region = MultivariateNormal([0.0, 0.0], covariance=np.diag([4.0, 1.0])).ellipsoid(0.9)
    >>> region.radii.round(3), bool(region.contains([4.0, 0.0])), bool(region.contains([0.0, 4.0]))
    (array([4.292, 2.146]), True, False)

    """

    def __init__(self, distribution: Elliptical, squared_radius: Any) -> None:
        c = np.array(squared_radius, dtype=np.float64)
        if not (c >= 0).all() or c.shape not in ((), distribution.batch_shape):
            raise ValueError(
                f"squared_radius={squared_radius!r} must be ≥ 0, one number or one per "
                f"distribution, of shape {distribution.batch_shape}."
            )
        self.distribution = distribution
        self.squared_radius = np.broadcast_to(c, distribution.batch_shape)

    @property
    def center(self) -> Array:
        """The center μ: (..., d)."""
        return self.distribution.location

    def contains(self, y: Any) -> np.ndarray:
        """Whether y (..., d) is inside: (...), boolean.

        Raises:
            ValueError: y does not fit the distributions, or is not finite.

        """
        values = finite(in_order(y, self.distribution.target_names), "y")
        return np.asarray(self.distribution.mahalanobis(values) ** 2 <= self.squared_radius)

    @property
    def log_volume(self) -> Array:
        """The log-volume log(π^(d/2) c^(d/2) √det Σ / Γ(d/2 + 1)), in log units of y: (...)."""
        d = self.distribution.event_size
        with np.errstate(divide="ignore"):
            log_ball = 0.5 * d * np.log(math.pi * self.squared_radius)
        return log_ball - math.lgamma(0.5 * d + 1.0) + self.distribution.half_log_det

    @property
    def volume(self) -> Array:
        """The volume exp(log_volume), which may exceed float64 for many targets: (...)."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self.log_volume)

    @property
    def radii(self) -> Array:
        """Half-lengths of the axes, the longest first, in the units of y: (..., d).

        √(c λ) for the eigenvalues λ of Σ, computed from the singular values of its factor. Forms
        d × d matrices.
        """
        singular = np.linalg.svd(self.distribution.scale_tril, compute_uv=False)
        return np.sqrt(self.squared_radius)[..., None] * singular

    @property
    def axes(self) -> Array:
        """Directions of the axes as unit vectors in columns, the longest first: (..., d, d).

        If targets have different units, the axes depend on these. If that matters, standardize
        first: `normal / normal.stddev`.
        """
        return np.linalg.svd(self.distribution.scale_tril)[0]

    def outline(self) -> list[Array]:
        """The ellipse of a single region of two targets, as one closed curve: [(2, points)].

        Raises:
            ValueError: there is a batch, or not two targets.

        """
        if self.batch_shape or self.distribution.event_size != 2:
            raise ValueError(f"outline draws one region of two targets; this is {self!r}.")
        angle = np.linspace(0.0, 2.0 * np.pi, 181)
        circle = np.sqrt(self.squared_radius) * np.stack([np.cos(angle), np.sin(angle)])
        return [self.center[:, None] + self.distribution.scale_tril @ circle]

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper ends of the smallest enclosing box, μ ∓ √(c diag Σ): (..., d) each."""
        reach = np.sqrt(self.squared_radius)[..., None] * self.distribution.scale_stddev
        return self.distribution.location - reach, self.distribution.location + reach

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes; () for a single region."""
        return self.distribution.batch_shape

    def _take(self, index: Any) -> Ellipsoid:
        return Ellipsoid(self.distribution[index], self.squared_radius[index])

    def __repr__(self) -> str:
        d = self.distribution.event_size
        return f"Ellipsoid(batch_shape={self.batch_shape}, event_size={d})"
