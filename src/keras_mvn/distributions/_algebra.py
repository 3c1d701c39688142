"""Operations on normal distributions: marginals, conditioning, linear functions, rescaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    symmetric,
)
from keras_mvn._core.targets import by_target, named, positions, target_names_of
from keras_mvn._core.types import Array
from keras_mvn.covariances._from_dense import cholesky
from keras_mvn.distributions._arguments import per_row, variances
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions._named_gaussian import NamedGaussian

__all__ = ["Algebra"]


class Algebra(NamedGaussian):
    """Operations whose results are normal distributions again."""

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
        return self._of(self._gaussian.marginal(index), named(self.target_names, index))

    def condition(
        self, values: Mapping[Any, Any], variance: Mapping[Any, Any] | float | None = None
    ) -> Self:
        """The distribution of the remaining targets, given measurements of some.

        N(μ_b + Σ_ba (Σ_aa + T)⁻¹ (y_a − μ_a), Σ_bb − Σ_ba (Σ_aa + T)⁻¹ Σ_ab), where T holds the
        variances of the measurement errors. Targets measured exactly are dropped from the result;
        those measured with an error remain, with their updated distribution.

        Args:
            values: mapping from target (name or index) to measured value, in the units of y: one
                number, or one per distribution (...).
            variance: variances of the measurement errors, in squared units of y: mapping from
                target to a number or (...), or one number for all. Targets not in the mapping are
                exact, as are all for None. Infinite means not measured in this row (the value is
                then ignored, but must be finite).

        Raises:
            ValueError: a target is unknown or repeated, there is none, or all are given exactly;
                values are not finite or do not fit the batch; a variance is negative, or is 0 in
                some rows only.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal(
        ...     [1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]], target_names=["a", "b"]
        ... )
        >>> b = normal.condition({"a": 3.0})  # 2 + 3/4 · (3 − 1), 9 − 3²/4
        >>> b.target_names, b.mean, b.variance
        (('b',), array([3.5]), array([6.75]))
        >>> normal.condition({"a": 3.0}, variance={"a": 4.0}).mean  # half as far
        array([2.  , 2.75])

        """
        given = by_target(values)
        if not given:
            raise ValueError(
                "condition: values must be a mapping from target to measured value, such as "
                f"{{0: 1.5}}; received {values!r}."
            )
        index = positions(list(given), self.target_names, self.event_size)
        measured = per_row(list(given.values()), "values", self.batch_shape)
        noise, exact = variances(
            variance, index, self.target_names, self.event_size, self.batch_shape
        )
        residual = measured - self.mean[..., index]
        if exact.all() and len(index) == self.event_size:
            raise ValueError(
                "condition: values contains exact measurements of all targets, so nothing is left "
                "to predict. If the measurements have errors, pass variance=."
            )
        posterior = self._gaussian.condition(index, residual, noise, exact)
        left = np.setdiff1d(np.arange(self.event_size), index[exact])
        return self._of(posterior, named(self.target_names, left))

    def update(
        self, values: Any, matrix: Any = None, *, variance: Any = None, covariance: Any = None
    ) -> Self:
        """The distribution of all targets, given noisy measurements of linear functions of them.

        values = A y + e with e ~ N(0, T): the measurement update of the Kalman filter. If their
        errors are independent, measurements may arrive one after another:
        `normal.update(...).update(...)` gives the same result as a single update.

        Args:
            values: (..., m), measured values.
            matrix: A, (m, d) or (..., m, d), or (d,) for one measurement; None if each target is
                measured.
            variance: variances of independent errors, positive: one number, (m,) or (..., m).
            covariance: T, (m, m) or (..., m, m), positive definite, in place of `variance`.

        Raises:
            ValueError: shapes do not fit, values are not finite, variances are not positive, or
                not exactly one of variance and covariance is given.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
        >>> normal.update([5.0], [[1.0, 1.0]], variance=0.01).sum().mean.round(3)  # almost 5
        array([4.999])

        """
        if (variance is None) == (covariance is None):
            raise ValueError("update takes exactly one of variance and covariance.")
        measured = np.atleast_1d(finite(values, "values"))
        m, d = measured.shape[-1], self.event_size
        rows = linear_functions(np.eye(d) if matrix is None else matrix, "matrix", d)
        if rows.shape[-2] != m:
            raise ValueError(
                f"values has shape {measured.shape} and matrix has shape {rows.shape}: {m} "
                f"measurements of {rows.shape[-2]} functions of the targets. The two numbers must "
                "be equal."
            )
        if covariance is None:
            noise = fitting(positive(variance, "variance"), (m,), "variance")
            if matrix is None:
                return self._update_targets(measured, noise)
            noise_lower = np.sqrt(noise)[..., :, None] * np.eye(m)
        else:
            matrix = symmetric(square(covariance, "covariance", (m,)), "covariance")
            noise_lower = cholesky(matrix, "covariance")
        expected = (rows @ self.mean[..., None])[..., 0]
        with explained_shapes("values", measured.shape, self.batch_shape):
            posterior = self._gaussian.update(rows, measured - expected, noise_lower)
        return self._of(posterior, self.target_names)

    def _update_targets(self, measured: Array, noise: Array) -> Self:
        """Update by measurements of all targets with independent errors; keeps a low rank."""
        with explained_shapes("values", measured.shape, self.batch_shape):
            residual = measured - self.mean
        every = np.arange(self.event_size)
        posterior = self._gaussian.condition(every, residual, noise, np.zeros(len(every), bool))
        return self._of(posterior, self.target_names)

    def affine(
        self, matrix: Any, offset: Any = 0.0, target_names: Sequence[str] | None = None
    ) -> Self:
        """The joint distribution of m linear functions A y + b, N(A μ + b, A Σ Aᵀ).

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
            return self._of(self._gaussian.affine(rows, shift), target_names)

    def sum(self, targets: Any = None, name: str = "sum") -> Self:
        """The distribution of the sum of all or some targets, as one target called `name`."""
        index = positions(
            slice(None) if targets is None else targets, self.target_names, self.event_size
        )
        weights = np.zeros(self.event_size)
        weights[index] = 1.0
        return self.affine(weights, target_names=[name])

    def difference(self, target: Any, other: Any) -> Self:
        """The distribution of `target − other`, as one target."""
        index = positions([target, other], self.target_names, self.event_size)
        weights = np.zeros(self.event_size)
        weights[index] = 1.0, -1.0
        names = target_names_of(self.target_names, self.event_size)
        return self.affine(weights, target_names=[f"{names[index[0]]} - {names[index[1]]}"])

    def __add__(self, constant: Any) -> Self:
        """The distribution of y + constant: one number, or one per target (..., d)."""
        return self._moved(1.0, constant)

    __radd__ = __add__

    def __sub__(self, constant: Any) -> Self:
        """The distribution of y − constant."""
        return self._moved(1.0, -_constant(constant))

    def __rsub__(self, constant: Any) -> Self:
        """The distribution of constant − y."""
        return self._moved(-1.0, constant)

    def __neg__(self) -> Self:
        """The distribution of −y."""
        return self._moved(-1.0, 0.0)

    def __mul__(self, factor: Any) -> Self:
        """The distribution of y · factor; factor is one number, or a positive one per target."""
        return self._moved(factor, 0.0)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Self:
        """The distribution of y / divisor, with the restrictions of `*`."""
        divisors = _constant(divisor)
        if not divisors.all():
            raise ValueError(f"The divisor {divisor!r} must not be 0.")
        return self._moved(1.0 / divisors, 0.0)

    __array_ufunc__ = None  # so that array + normal calls __radd__

    def _moved(self, factor: Any, offset: Any) -> Self:
        factors, shift = _constant(factor), _constant(offset)
        if not ((factors > 0).all() or (factors.ndim == 0 and factors != 0)):
            raise ValueError(
                f"factor={factor!r} must be one number other than 0, or one positive number per "
                "target. For other linear functions, use `affine`."
            )
        prior = self._gaussian
        with explained_shapes("the constant", np.broadcast(factors, shift).shape, prior.mean.shape):
            mean = prior.mean * factors + shift
            if mean.shape[-1] != self.event_size:
                raise ValueError
        moved = prior.on_batch(mean.shape[:-1])
        scale = moved.scale * np.abs(factors)
        return self._of(
            Gaussian(moved.structure, mean, scale, moved.shape_params), self.target_names
        )

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
        return self._of(self._gaussian.rescale(factors[..., None]), self.target_names)

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
        return self._of(self._gaussian.rescale(vector), self.target_names)

    def transform_errors(self, scale_tril: Any) -> Self:
        """The same means, with recombined errors: Σ' = L C Cᵀ Lᵀ, L the Cholesky factor of Σ.

        Args:
            scale_tril: C, (d, d), lower triangular with a positive diagonal.

        Raises:
            ValueError: C is not such a matrix.

        """
        c = lower_triangular(square(scale_tril, "scale_tril", (self.event_size,)))
        return self._of(self._gaussian.transform_errors(c), self.target_names)


def _constant(value: Any) -> Array:
    """Check the other operand of + and *; a distribution would need a joint covariance."""
    if isinstance(value, NamedGaussian):
        raise TypeError(
            "Sums and products of two distributions need their joint covariance, which is not "
            "known. For targets of one distribution, use `sum`, `difference` or `affine`; to fuse "
            "two predictions, use `combine` or `covariance_intersection`."
        )
    return finite(value, "the constant")
