"""Elliptical distributions with target names: moments, whitening and batch axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_mvn._core.targets import names_of_targets, observed_targets
from keras_mvn._core.types import Array
from keras_mvn.covariances import Covariance
from keras_mvn.distributions._gaussian import Gaussian, lower_factor
from keras_mvn.distributions._parts import Part
from keras_mvn.distributions._radial_law import RadialLaw
from keras_mvn.distributions.base import Distribution, correlation_of
from keras_mvn.layouts import Parameters

__all__ = ["Elliptical"]


class Elliptical(Distribution):
    """A batch of elliptical distributions: location μ, scale matrix Σ and a law of the radius."""

    _gaussian: Gaussian
    _law: RadialLaw
    _target_names: tuple[str, ...] | None

    @classmethod
    def _of(cls, gaussian: Gaussian, law: RadialLaw, target_names: Sequence[str] | None) -> Self:
        created = cls.__new__(cls)
        created._gaussian = gaussian
        created._law = law.on_batch(gaussian.batch_shape)
        created._target_names = names_of_targets(target_names, gaussian.event_size)
        return created

    def _like(self, gaussian: Gaussian, target_names: Sequence[str] | None) -> Self:
        """Distributions of the same law, with other parameters."""
        return self._of(gaussian, self._law, target_names)

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """The d target names, or None."""
        return self._target_names

    # --- parameters and moments ------------------------------------------------------------------

    @property
    def location(self) -> Array:
        """The location μ, in the units of y: (..., d); read-only, as distributions may share it."""
        location = self._gaussian.mean.view()
        location.setflags(write=False)
        return location

    center = location

    @property
    def median(self) -> Array:
        """The median of each target, which is the location: (..., d)."""
        return self.location

    @property
    def mean(self) -> Array:
        """The mean, in the units of y: (..., d); read-only, as distributions may share it.

        Raises:
            ValueError: there is none.

        """
        self._law.require_mean()
        return self.location

    @property
    def scale_matrix(self) -> Array:
        """The scale matrix Σ, in squared units of y: (..., d, d)."""
        return self._gaussian.covariance()

    @property
    def covariance(self) -> Array:
        """The covariance, in squared units of y: (..., d, d).

        Raises:
            ValueError: there is none.

        """
        return self._law.variance_factor()[..., None, None] * self.scale_matrix

    @property
    def variance(self) -> Array:
        """The variances, in squared units of y: (..., d).

        Raises:
            ValueError: there are none.

        """
        return self._law.variance_factor()[..., None] * self._gaussian.variance()

    @property
    def correlation(self) -> Array:
        """Correlation matrices of Σ, with an exact unit diagonal: (..., d, d)."""
        return correlation_of(self._gaussian.shape_matrix())

    @property
    def scale_tril(self) -> Array:
        """The lower Cholesky factor L of Σ = L Lᵀ: (..., d, d)."""
        return self._gaussian.scale_tril()

    @property
    def scale_stddev(self) -> Array:
        """Square roots of the diagonal of Σ, in the units of y: (..., d)."""
        return np.sqrt(self._gaussian.variance())

    @property
    def half_log_det(self) -> Array:
        """The half log-determinant ½ log det Σ: (...)."""
        return self._gaussian.half_log_det()

    @property
    def structure(self) -> Covariance:
        """The covariance structure that represents Σ by its `parameters`."""
        return self._gaussian.structure

    @property
    def parameters(self) -> Parameters:
        """The mean (..., d), scale (..., d) and shape_params (..., k) of the structure."""
        g = self._gaussian
        return Parameters(g.mean, g.scale, g.shape_params)

    @property
    def event_size(self) -> int:
        """d, the number of targets."""
        return self._gaussian.event_size

    # --- whitening -------------------------------------------------------------------------------

    def whiten(self, y: Any, missing: str = "raise") -> Array:
        """The whitened residuals z = Σ^(−½) (y − μ): (..., d).

        They are uncorrelated, and standard normal if the distributions are right and normal. The
        structure chooses the root of Σ⁻¹, so that whitening needs no factorization. Arguments and
        errors are as for `log_prob`; for a row with missing values, only ‖z‖² is meaningful.
        """
        return self._standardize(y, missing)[0]

    def mahalanobis(self, y: Any, missing: str = "raise") -> Array:
        """The Mahalanobis distance √((y − μ)ᵀ Σ⁻¹ (y − μ)), in scales: (...).

        Arguments and errors are as for `log_prob`; for a row with missing values, this is the
        distance in the marginal of the observed targets.
        """
        return np.sqrt((self._standardize(y, missing)[0] ** 2).sum(axis=-1))

    def _standardize(self, y: Any, missing: str) -> tuple[Array, Array, Any]:
        """Return z, ½ log det Σ and the number of targets, all for the observed targets only."""
        values, observed = observed_targets(y, missing, self.target_names)
        residual = self.residual(values)
        if observed is None:
            return *self._gaussian.whiten(residual), self.event_size
        mask = np.broadcast_to(observed, residual.shape)
        return *self._gaussian.whiten(np.where(mask > 0, residual, 0.0), mask), mask.sum(axis=-1)

    def residual(self, values: Array) -> Array:
        """The residuals y − μ of finite values (..., d), whose batch axes broadcast: (..., d).

        Raises:
            ValueError: the last axis is not d, or batch axes do not fit.

        """
        self.common_shape(values)
        return values - self._gaussian.mean

    # --- what scores and calibration need --------------------------------------------------------

    def parts(self) -> tuple[Part, ...]:
        """The distribution itself, as the only part."""
        return (Part(np.zeros(self.batch_shape), self._gaussian, self._law),)

    def require_elliptical(self, who: str) -> Self:
        """These distributions, to which the formulas of elliptical distributions apply."""
        return self

    def with_moments_of(self, other: Elliptical, law: RadialLaw) -> Self:
        """Distributions of this family and a law, with the mean and covariance of others.

        Raises:
            ValueError: the law has no covariance.

        """
        ratio = np.sqrt(other.law.variance_factor() / law.variance_factor())
        factor = np.broadcast_to(ratio, other.batch_shape)[..., None]
        return self._of(other._gaussian.rescale(factor), law, other.target_names)

    def widened(self, spread: Array) -> Self:
        """The same distributions with Σ s sᵀ added to their covariances.

        The sum is not formed: a QR factorization of the stacked factors keeps their accuracy.

        Args:
            spread: (m, ..., d), the vectors s.

        Raises:
            ValueError: the law has no covariance.

        """
        factor = np.broadcast_to(self._law.variance_factor(), self.batch_shape)
        own = np.moveaxis(spread, 0, -1) / np.sqrt(factor)[..., None, None]
        tril = lower_factor(np.concatenate([self.scale_tril, own], axis=-1))
        return self._like(Gaussian.of_lower(self._gaussian.mean, tril), self.target_names)

    @property
    def law(self) -> RadialLaw:
        """The law of the radius, which distinguishes elliptical distributions of equal Σ."""
        return self._law

    # --- the same distributions, rearranged ------------------------------------------------------

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes; () for a single distribution."""
        return self._gaussian.batch_shape

    def _take(self, index: Any) -> Self:
        return self._of(self._gaussian.take(index), self._law.take(index), self.target_names)

    def with_names(self, target_names: Sequence[str] | None) -> Self:
        """The same distributions, with different target names.

        Args:
            target_names: d names, or None for no names.

        Raises:
            ValueError: the number of names is not d, or a name is repeated.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
        >>> normal.with_names(["a", "b"]).marginal("b").mean
        array([2.])

        """
        return self._like(self._gaussian, target_names)

    def flatten(self) -> Self:
        """The same distributions with one batch axis, in C order; (1,) for a single distribution.

        >>> import numpy as np
        >>> from keras_mvn import MultivariateNormal
        >>> MultivariateNormal(np.zeros((2, 3, 1)), covariance=[[1.0]]).flatten().batch_shape
        (6,)

        """
        return self._of(self._gaussian.flat(), self._law.flat(), self.target_names)

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Self:
        """The same distributions, repeated along new batch axes, as `numpy.broadcast_to`."""
        return self._like(self._gaussian.on_batch(batch_shape), self.target_names)

    def _joined(self, batches: Sequence[Self]) -> Self:
        gaussian = Gaussian.concatenate([one._gaussian for one in batches])
        law = self._law.joined([one._law for one in batches[1:]])
        return self._of(gaussian, law, self.target_names)
