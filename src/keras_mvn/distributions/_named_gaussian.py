"""A batch of Gaussians with target names: moments, whitening and batch axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_mvn._core.targets import names_of_targets, observed_targets
from keras_mvn._core.types import Array
from keras_mvn.covariances import Covariance
from keras_mvn.distributions._batch import Batch
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.layouts import Parameters

__all__ = ["NamedGaussian"]


class NamedGaussian(Batch):
    """A batch of normals N(μ, Σ), with names of their targets."""

    _gaussian: Gaussian
    target_names: tuple[str, ...] | None

    @classmethod
    def _of(cls, gaussian: Gaussian, target_names: Sequence[str] | None) -> Self:
        normal = cls.__new__(cls)
        normal._gaussian = gaussian
        normal.target_names = names_of_targets(target_names, gaussian.event_size)
        return normal

    @property
    def mean(self) -> Array:
        """The mean μ, in the units of y: (..., d); read-only, as distributions may share it."""
        mean = self._gaussian.mean.view()
        mean.setflags(write=False)
        return mean

    @property
    def covariance(self) -> Array:
        """The covariance Σ, in squared units of y: (..., d, d)."""
        return self._gaussian.covariance()

    @property
    def variance(self) -> Array:
        """The variances, in squared units of y: (..., d)."""
        return self._gaussian.variance()

    @property
    def stddev(self) -> Array:
        """Standard deviations, in the units of y: (..., d)."""
        return np.sqrt(self.variance)

    @property
    def correlation(self) -> Array:
        """Correlation matrices, with an exact unit diagonal: (..., d, d)."""
        r = self._gaussian.shape_matrix()
        root = np.sqrt(np.diagonal(r, axis1=-2, axis2=-1))
        correlation = r / root[..., :, None] / root[..., None, :]
        index = np.arange(self.event_size)
        correlation[..., index, index] = 1.0
        return np.asarray(correlation)

    @property
    def scale_tril(self) -> Array:
        """The lower Cholesky factor L of Σ = L Lᵀ: (..., d, d)."""
        return self._gaussian.scale_tril()

    @property
    def precision(self) -> Array:
        """The precision matrix Σ⁻¹: (..., d, d)."""
        k = self._gaussian.whitening()
        return np.asarray(np.swapaxes(k, -1, -2) @ k)

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

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes; () for a single distribution."""
        return self._gaussian.batch_shape

    def _take(self, index: Any) -> Self:
        return self._of(self._gaussian.take(index), self.target_names)

    # --- whitening -------------------------------------------------------------------------------

    def whiten(self, y: Any, missing: str = "raise") -> Array:
        """The whitened residuals z = Σ^(−½) (y − μ): (..., d).

        They are independent and standard normal if the model is right. The structure chooses the
        root of Σ⁻¹, so that whitening needs no factorization. Arguments and errors are as for
        `log_prob`; for a row with missing values, only ‖z‖² is meaningful.
        """
        return self._standardize(y, missing)[0]

    def mahalanobis(self, y: Any, missing: str = "raise") -> Array:
        """The Mahalanobis distance √((y − μ)ᵀ Σ⁻¹ (y − μ)), in standard deviations: (...).

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
        if values.shape[-1:] != (self.event_size,):
            raise ValueError(
                f"y has shape {values.shape}; these distributions have {self.event_size} targets "
                f"and batch shape {self.batch_shape}, so it must be (..., {self.event_size})."
            )
        try:
            return values - self.mean
        except ValueError:
            raise ValueError(
                f"y has batch shape {values.shape[:-1]}, which does not broadcast against the "
                f"batch shape {self.batch_shape} of the distributions."
            ) from None

    # --- the same distributions, rearranged ------------------------------------------------------

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
        return self._of(self._gaussian, target_names)

    def flatten(self) -> Self:
        """The same distributions with one batch axis, in C order; (1,) for a single distribution.

        >>> import numpy as np
        >>> from keras_mvn import MultivariateNormal
        >>> MultivariateNormal(np.zeros((2, 3, 1)), covariance=[[1.0]]).flatten().batch_shape
        (6,)

        """
        return self._of(self._gaussian.flat(), self.target_names)

    @classmethod
    def concatenate(cls, normals: Sequence[Self]) -> Self:
        """Join batches along their first axis, as `numpy.concatenate` joins arrays.

        The structure is kept if all have the same one; otherwise Σ is represented by its Cholesky
        factor.

        Args:
            normals: at least one batch of distributions, all of the same targets.

        Raises:
            ValueError: there is no batch, one is a single distribution, or targets or further
                batch axes differ.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([[1.0], [2.0]], covariance=[[1.0]])
        >>> MultivariateNormal.concatenate([normal, normal[:1]]).mean[:, 0]
        array([1., 2., 1.])

        """
        batches = list(normals)
        if not batches or not all(one.batch_shape for one in batches):
            raise ValueError(
                "concatenate takes at least one batch of distributions. A single distribution has "
                "no axis to join along; use `flatten()` to add one."
            )
        first = batches[0]
        for one in batches[1:]:
            if (one.event_size, one.target_names) != (first.event_size, first.target_names):
                raise ValueError(f"concatenate: {one!r} does not have the targets of {first!r}.")
            if one.batch_shape[1:] != first.batch_shape[1:]:
                raise ValueError(
                    f"concatenate: batch shapes {one.batch_shape} and {first.batch_shape} differ "
                    "beyond the first axis."
                )
        return cls._of(Gaussian.concatenate([one._gaussian for one in batches]), first.target_names)
