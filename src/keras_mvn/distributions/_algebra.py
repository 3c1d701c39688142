"""Normal distributions made from others: margins, conditioning, linear functions, other errors."""

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
    """The operations under which normal distributions stay normal."""

    def marginal(self, targets: Any) -> Self:
        """The joint distribution of some targets, whatever the others are.

        Args:
            targets: names or indices, one or several, in the order wanted; or a slice.

        Raises:
            ValueError: an unknown target, one named twice, or none.

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
        """What the other targets are, given that some were measured.

        N(μ_b + Σ_ba (Σ_aa + T)⁻¹ (y_a − μ_a), Σ_bb − Σ_ba (Σ_aa + T)⁻¹ Σ_ab), T the variances of
        the measurements' errors. Targets measured exactly are no part of the result; those
        measured with an error are, with what is now known of them.

        Args:
            values: target (name or index) → measured value, in the units of y: one number, or
                one per distribution (...).
            variance: of the measurements' errors, squared units of y: target → number or (...), or
                one number for all. Targets that are not in it, and None, are exact; infinite: not
                measured in this row (the value is then ignored, but has to be finite).

        Raises:
            ValueError: an unknown target, one named twice, none, or all of them exactly; values
                that are not finite or fit no batch; a negative variance, or one that is 0 in some
                rows only.

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
                f"condition takes target → measured value, as {{0: 1.5}}; received {values!r}."
            )
        index = positions(list(given), self.target_names, self.event_size)
        measured = per_row(list(given.values()), "values", self.batch_shape)
        noise, exact = variances(
            variance, index, self.target_names, self.event_size, self.batch_shape
        )
        residual = measured - self.mean[..., index]
        if exact.all() and len(index) == self.event_size:
            raise ValueError(
                "condition was given all targets exactly, so that nothing is left to predict. "
                "Measurements with errors need variance=."
            )
        posterior = self._gaussian.condition(index, residual, noise, exact)
        left = np.setdiff1d(np.arange(self.event_size), index[exact])
        return self._of(posterior, named(self.target_names, left))

    def update(
        self, values: Any, matrix: Any = None, *, variance: Any = None, covariance: Any = None
    ) -> Self:
        """What all targets are after noisy measurements of linear functions of them.

        values = A y + e with e ~ N(0, T): the Kalman filter's measurement update. Measurements may
        arrive one after another: `normal.update(...).update(...)` is the same as all at once, if
        their errors are independent.

        Args:
            values: (..., m), what was measured.
            matrix: A, (m, d) or (..., m, d), or (d,) for one measurement; None: each target.
            variance: of the errors, one number, or (m,) or (..., m), positive.
            covariance: T, (m, m) or (..., m, m) positive definite, instead of `variance`.

        Raises:
            ValueError: shapes that don't fit, values that are not finite, variances that are not
                positive, or not exactly one of variance and covariance.

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
                f"values has shape {measured.shape} and matrix {rows.shape}: {m} measurements of "
                f"{rows.shape[-2]} functions of the targets."
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
        """With a measurement of each target, independent errors: a low rank remains one."""
        with explained_shapes("values", measured.shape, self.batch_shape):
            residual = measured - self.mean
        every = np.arange(self.event_size)
        posterior = self._gaussian.condition(every, residual, noise, np.zeros(len(every), bool))
        return self._of(posterior, self.target_names)

    def affine(
        self, matrix: Any, offset: Any = 0.0, target_names: Sequence[str] | None = None
    ) -> Self:
        """The joint distribution of m linear functions A y + b: N(A μ + b, A Σ Aᵀ).

        Totals, contrasts, portfolios, changes of coordinates. O((d + r) m²) for a low-rank
        structure of rank r, nothing of size d × d.

        Args:
            matrix: A, (m, d) or (..., m, d), or (d,) for one function; linearly independent rows.
            offset: b, a number, (m,) or (..., m).
            target_names: m names of the functions.

        Raises:
            ValueError: shapes that don't fit, values that are not finite, or dependent rows.

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
        """The distribution of the sum of all targets, or of some: one target, called `name`."""
        index = positions(
            slice(None) if targets is None else targets, self.target_names, self.event_size
        )
        weights = np.zeros(self.event_size)
        weights[index] = 1.0
        return self.affine(weights, target_names=[name])

    def difference(self, target: Any, other: Any) -> Self:
        """The distribution of `target − other`: one target."""
        index = positions([target, other], self.target_names, self.event_size)
        weights = np.zeros(self.event_size)
        weights[index] = 1.0, -1.0
        names = target_names_of(self.target_names, self.event_size)
        return self.affine(weights, target_names=[f"{names[index[0]]} - {names[index[1]]}"])

    def __add__(self, constant: Any) -> Self:
        """y + constant; a number or one per target, (..., d)."""
        return self._moved(1.0, constant)

    __radd__ = __add__

    def __sub__(self, constant: Any) -> Self:
        """y − constant."""
        return self._moved(1.0, -_constant(constant))

    def __rsub__(self, constant: Any) -> Self:
        """constant − y."""
        return self._moved(-1.0, constant)

    def __neg__(self) -> Self:
        """−y."""
        return self._moved(-1.0, 0.0)

    def __mul__(self, factor: Any) -> Self:
        """Y in other units: a number, or positive numbers, one per target, (..., d)."""
        return self._moved(factor, 0.0)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Self:
        """Y in other units, as `*`."""
        divisors = _constant(divisor)
        if not divisors.all():
            raise ValueError(f"The divisor {divisor!r} must not be 0.")
        return self._moved(1.0 / divisors, 0.0)

    __array_ufunc__ = None  # array + normal comes here, too

    def _moved(self, factor: Any, offset: Any) -> Self:
        factors, shift = _constant(factor), _constant(offset)
        if not ((factors > 0).all() or (factors.ndim == 0 and factors != 0)):
            raise ValueError(
                f"factor={factor!r} must be one number other than 0, or positive numbers, one per "
                "target. Other linear functions are `affine`."
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

    # --- the same means, other errors ------------------------------------------------------------

    def rescale(self, factor: Any) -> Self:
        """The same means with all standard deviations multiplied: Σ' = factor² Σ.

        Args:
            factor: positive, a number or (...) one per distribution.

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
        """The same means and correlations: Σ' = D Σ D, D = diag(factors).

        Args:
            factors: (d,), positive.

        Raises:
            ValueError: factors are not d positive numbers.

        """
        vector = positive(factors, "factors")
        if vector.shape != (self.event_size,):
            raise ValueError(f"factors={factors!r} must be {self.event_size} positive numbers.")
        return self._of(self._gaussian.rescale(vector), self.target_names)

    def transform_errors(self, scale_tril: Any) -> Self:
        """The same means, Σ' = L C Cᵀ Lᵀ, L the Cholesky factor of Σ: its errors recombined.

        Args:
            scale_tril: C, (d, d), lower triangular with a positive diagonal.

        Raises:
            ValueError: C is not such a matrix.

        """
        c = lower_triangular(square(scale_tril, "scale_tril", (self.event_size,)))
        return self._of(self._gaussian.transform_errors(c), self.target_names)


def _constant(value: Any) -> Array:
    """The other side of + and *; not a distribution, with which no joint one would be known."""
    if isinstance(value, NamedGaussian):
        raise TypeError(
            "Sums and products of two distributions need their joint covariance. For targets of "
            "one distribution use `sum`, `difference` or `affine`; to fuse two "
            "predictions, `combine` or `covariance_intersection`."
        )
    return finite(value, "the constant")
