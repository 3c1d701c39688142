"""Operations on elliptical distributions: marginals, conditioning, linear functions, rescaling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_mvn._core.checks import (
    explained_shapes,
    finite,
    fitting,
    linear_functions,
    lower_triangular,
    positive,
    square,
)
from keras_mvn._core.targets import named, positions
from keras_mvn._core.types import Array
from keras_mvn.distributions._arguments import Measurements
from keras_mvn.distributions._elliptical import Elliptical
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions.base import Distribution

__all__ = ["Algebra"]


class Algebra(Elliptical):
    """Operations whose results are distributions of the same family again."""

    def marginal(self, targets: Any) -> Self:
        """The marginal distribution of some of the targets.

        Args:
            targets: one or several names or indices, in the desired order, or a slice.

        Raises:
            ValueError: a target is unknown or repeated, or there is none.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
        >>> normal.marginal(1).variance
        array([9.])

        """
        index = positions(targets, self.target_names, self.event_size)
        return self._like(self._gaussian.marginal(index), named(self.target_names, index))

    def _conditioned(self, measured: Measurements) -> tuple[Distribution, Array]:
        """Condition on exact measurements, or noisy ones of a family that noise does not leave."""
        index, residual = measured.index, self._residual_of(measured)
        posterior = self._gaussian.condition(index, residual, measured.variance, measured.exact)
        noisy = self._gaussian.marginal(index).with_errors(measured.variance)
        shape = (*np.broadcast_shapes(residual.shape[:-1], noisy.batch_shape), len(index))
        z, half_log_det = noisy.on_batch(shape[:-1]).whiten(
            np.broadcast_to(residual, shape), measured.observed(shape)
        )
        squared, count = (z**2).sum(axis=-1), measured.count(shape)
        law, factor = self._law.given(squared, len(index))
        log_evidence = self._law.log_density(squared, count) - half_log_det
        posterior = posterior.rescale(np.broadcast_to(factor, posterior.batch_shape)[..., None])
        return self._of(posterior, law, named(self.target_names, measured.left)), log_evidence

    def _residual_of(self, measured: Measurements) -> Array:
        return measured.values - self._gaussian.mean[..., measured.index]

    def affine(
        self, matrix: Any, offset: Any = 0.0, target_names: Sequence[str] | None = None
    ) -> Self:
        """The joint distribution of m linear functions A y + b, with A μ + b and A Σ Aᵀ.

        For totals, contrasts, portfolios, and changes of coordinates. Costs O((d + r) m²) for a
        low-rank structure of rank r, and forms nothing of size d × d.

        Args:
            matrix: A, (m, d) or (..., m, d), or (d,) for one function, with linearly independent
                rows.
            offset: b, one number, (m,) or (..., m).
            target_names: m names of the functions.

        Raises:
            ValueError: shapes do not fit, values are not finite, or rows are dependent.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
        >>> half = normal.affine([0.5, 0.5], target_names=["average"])
        >>> half.mean, half.variance.round(9)
        (array([1.5]), array([4.75]))

        """
        rows = linear_functions(matrix, "matrix", self.event_size)
        shift = fitting(finite(offset, "offset"), (rows.shape[-2],), "offset")
        with explained_shapes("matrix", rows.shape, self.batch_shape):
            return self._like(self._gaussian.affine(rows, shift), target_names)

    def _scaled(self, factors: Array, offset: Array) -> Self:
        prior = self._gaussian
        with explained_shapes(
            "the constant", np.broadcast(factors, offset).shape, prior.mean.shape
        ):
            mean = prior.mean * factors + offset
            if mean.shape[-1] != self.event_size:
                raise ValueError
        moved = prior.on_batch(mean.shape[:-1])
        scale = moved.scale * np.abs(factors)
        gaussian = Gaussian(moved.structure, mean, scale, moved.shape_params)
        return self._like(gaussian, self.target_names)

    # --- same means, different errors ------------------------------------------------------------

    def rescale(self, factor: Any) -> Self:
        """The same means, with all standard deviations multiplied by factor: Σ' = factor² Σ.

        Args:
            factor: positive number, or one per distribution (...).

        Raises:
            ValueError: factor is not positive, or not one number per distribution.

        """
        factors = positive(factor, "factor")
        if factors.shape not in ((), self.batch_shape):
            raise ValueError(
                f"factor={factor!r} must be one number or one per distribution, of shape "
                f"{self.batch_shape}."
            )
        return self._like(self._gaussian.rescale(factors[..., None]), self.target_names)

    def rescale_targets(self, factors: Any) -> Self:
        """The same means and correlations, rescaled: Σ' = D Σ D with D = diag(factors).

        Args:
            factors: (d,), positive, one per target.

        Raises:
            ValueError: factors are not d positive numbers.

        """
        vector = positive(factors, "factors")
        if vector.shape != (self.event_size,):
            raise ValueError(
                f"factors={factors!r} must be {self.event_size} positive numbers, one per target."
            )
        return self._like(self._gaussian.rescale(vector), self.target_names)

    def transform_errors(self, scale_tril: Any) -> Self:
        """The same means, with recombined errors: Σ' = L C Cᵀ Lᵀ, L the Cholesky factor of Σ.

        Args:
            scale_tril: C, (d, d), lower triangular with a positive diagonal.

        Raises:
            ValueError: C is not such a matrix.

        """
        c = lower_triangular(square(scale_tril, "scale_tril", (self.event_size,)))
        return self._like(self._gaussian.transform_errors(c), self.target_names)
