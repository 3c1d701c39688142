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
    """N(μ, Σ) on batch axes, and the names of its targets."""

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
        """μ, in the units of y: (..., d); read-only, as it may be another distribution's, too."""
        mean = self._gaussian.mean.view()
        mean.setflags(write=False)
        return mean

    @property
    def covariance(self) -> Array:
        """Σ, in squared units of y: (..., d, d)."""
        return self._gaussian.covariance()

    @property
    def variance(self) -> Array:
        """The diagonal of Σ: (..., d)."""
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
        """Σ⁻¹: (..., d, d)."""
        k = self._gaussian.whitening()
        return np.asarray(np.swapaxes(k, -1, -2) @ k)

    @property
    def half_log_det(self) -> Array:
        """½ log det Σ: (...)."""
        return self._gaussian.half_log_det()

    @property
    def structure(self) -> Covariance:
        """The covariance structure in which Σ is held; `parameters` are its."""
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
        """The batch axes; () for a single distribution."""
        return self._gaussian.batch_shape

    def _take(self, index: Any) -> Self:
        return self._of(self._gaussian.take(index), self.target_names)

    # --- whitening -------------------------------------------------------------------------------

    def whiten(self, y: Any, missing: str = "raise") -> Array:
        """z = Σ^(−½) (y − μ), independent standard normal numbers if the model is right: (..., d).

        Which root of Σ⁻¹ is the structure's choice; its own whitening costs no factorization.
        Arguments and errors as for `log_prob`; of a row with gaps, only ‖z‖² has a meaning.
        """
        return self._standardize(y, missing)[0]

    def mahalanobis(self, y: Any, missing: str = "raise") -> Array:
        """√((y − μ)ᵀ Σ⁻¹ (y − μ)), the distance in standard deviations: (...).

        Arguments and errors as for `log_prob`; of a row with gaps, the distance in its margin.
        """
        return np.sqrt((self._standardize(y, missing)[0] ** 2).sum(axis=-1))

    def _standardize(self, y: Any, missing: str) -> tuple[Array, Array, Any]:
        """z, ½ log det Σ and the number of targets, all of what was observed."""
        values, observed = observed_targets(y, missing, self.target_names)
        residual = self.residual(values)
        if observed is None:
            return *self._gaussian.whiten(residual), self.event_size
        mask = np.broadcast_to(observed, residual.shape)
        return *self._gaussian.whiten(np.where(mask > 0, residual, 0.0), mask), mask.sum(axis=-1)

    def residual(self, values: Array) -> Array:
        """y − μ of finite values (..., d), with batch axes that broadcast: (..., d).

        Raises:
            ValueError: the last axis is not d, or batch axes do not fit.

        """
        if values.shape[-1:] != (self.event_size,):
            raise ValueError(
                f"y has shape {values.shape}; these distributions have {self.event_size} targets "
                f"and batch shape {self.batch_shape}, so y must be (..., {self.event_size})."
            )
        try:
            return values - self.mean
        except ValueError:
            raise ValueError(
                f"y has batch shape {values.shape[:-1]}, which does not broadcast against the "
                f"batch shape {self.batch_shape} of the distributions."
            ) from None

    # --- the same distributions, arranged in another way -----------------------------------------

    def with_names(self, target_names: Sequence[str] | None) -> Self:
        """The same distributions, with other names of the targets.

        Args:
            target_names: d names, or None for none.

        Raises:
            ValueError: another number of names, or one twice.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
        >>> normal.with_names(["a", "b"]).marginal("b").mean
        array([2.])

        """
        return self._of(self._gaussian, target_names)

    def flatten(self) -> Self:
        """The same distributions on one batch axis, in C order; (1,) for a single one.

        >>> import numpy as np
        >>> from keras_mvn import MultivariateNormal
        >>> MultivariateNormal(np.zeros((2, 3, 1)), covariance=[[1.0]]).flatten().batch_shape
        (6,)

        """
        return self._of(self._gaussian.flat(), self.target_names)

    @classmethod
    def concatenate(cls, normals: Sequence[Self]) -> Self:
        """Join batches along their first axis, as `numpy.concatenate` joins arrays.

        The structure is kept where all have the same one; else Σ is held by its Cholesky factor.

        Args:
            normals: distributions of the same targets; at least one.

        Raises:
            ValueError: none, single distributions, other targets, or other further batch axes.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([[1.0], [2.0]], covariance=[[1.0]])
        >>> MultivariateNormal.concatenate([normal, normal[:1]]).mean[:, 0]
        array([1., 2., 1.])

        """
        batches = list(normals)
        if not batches or not all(one.batch_shape for one in batches):
            raise ValueError(
                "concatenate takes at least one batch of distributions; a single distribution has "
                "no axis to join: use `flatten()`."
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
