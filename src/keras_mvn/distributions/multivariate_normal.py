"""The object a user holds after `predict`: a batch of multivariate normals, in NumPy float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import (
    explained_shapes,
    finite,
    fitting,
    limit,
    linear_functions,
    lower_triangular,
    positive,
    probability,
    square,
    symmetric,
    whole,
)
from keras_mvn._core.chi_square import chi_square_quantile
from keras_mvn._core.optional import require
from keras_mvn._core.targets import (
    by_target,
    limits,
    named,
    names_of_targets,
    observed_targets,
    position,
    positions,
    target_names_of,
)
from keras_mvn._core.types import Array
from keras_mvn.covariances import DEFAULT, Cholesky, Covariance, CovarianceLike, PrecisionCholesky
from keras_mvn.covariances._from_dense import cholesky
from keras_mvn.distributions import _divergences, _exchange, _fusion, _storage
from keras_mvn.distributions._batch import Batch
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions.probability.box import box_probability
from keras_mvn.distributions.probability.simultaneous import simultaneous_multiple
from keras_mvn.distributions.regions import Ellipsoid
from keras_mvn.layouts import Reader

__all__ = ["MultivariateNormal"]


@final
class MultivariateNormal(Batch):
    """A batch of multivariate normal distributions N(μ, Σ), for analysis in float64.

    From a model's prediction, `head.distribution(y_pred)` or `from_prediction`; or from a mean and
    exactly one of covariance, scale_tril and precision. Batch axes may be any number, none too:
    `len`, indexing and slicing act on them.

    Args:
        mean: (..., d).
        covariance: Σ, (..., d, d) symmetric positive definite, in squared units of y.
        scale_tril: L with Σ = L Lᵀ, (..., d, d) lower with a positive diagonal.
        precision: Σ⁻¹, (..., d, d) symmetric positive definite.
        target_names: d names.

    Raises:
        ValueError: not exactly one of the three, shapes that don't fit, values that are not
            finite, or a matrix that is not symmetric positive definite.

    >>> import numpy as np
    >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
    >>> normal.stddev, normal.correlation[0, 1]
    (array([2., 3.]), np.float64(0.5))
    >>> normal.log_prob([1.0, 2.0]).round(4)
    np.float64(-3.4858)

    """

    def __init__(
        self,
        mean: Any,
        *,
        covariance: Any = None,
        scale_tril: Any = None,
        precision: Any = None,
        target_names: Sequence[str] | None = None,
    ) -> None:
        location = finite(mean, "mean")
        given = {
            name: square(value, name, location.shape[-1:])
            for name, value in (
                ("covariance", covariance),
                ("scale_tril", scale_tril),
                ("precision", precision),
            )
            if value is not None
        }
        if len(given) != 1:
            raise ValueError(
                "MultivariateNormal takes exactly one of covariance, scale_tril and precision; "
                f"received {sorted(given) or 'none'}."
            )
        ((name, matrix),) = given.items()
        self._gaussian = _on_common_batch(location, *_READ[name](matrix))
        self.target_names = names_of_targets(target_names, location.shape[-1])

    @classmethod
    def _of(cls, gaussian: Gaussian, target_names: Sequence[str] | None) -> Self:
        normal = cls.__new__(cls)
        normal._gaussian = gaussian
        normal.target_names = names_of_targets(target_names, gaussian.event_size)
        return normal

    @classmethod
    def from_prediction(
        cls,
        y_pred: Any,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        target_names: Sequence[str] | None = None,
    ) -> Self:
        """The distributions a model predicted.

        Args:
            y_pred: what `model.predict` gave, (..., 2 d + k) in the packed layout.
            covariance: the head's structure; `head.distribution` knows it.
            from_raw: as the loss was told.
            layout: as the loss was told.
            target_names: d names.

        Raises:
            ValueError: y_pred of a width that the structure cannot read, values that are not
                finite, or scales that are not positive.

        >>> normal = MultivariateNormal.from_prediction([[1.0, 2.0, 0.5, 0.5, 0.0]])
        >>> normal
        MultivariateNormal(batch_shape=(1,), event_size=2, covariance='cholesky')

        """
        reader = Reader(covariance, from_raw, layout)
        try:
            with np.errstate(all="ignore"):  # judged below
                parameters = reader.decode(finite(y_pred, "y_pred"))
            valid = (parameters.scale > 0) & np.isfinite(parameters.scale)
            if not valid.all() or not np.isfinite(parameters.shape_params).all():
                raise np.linalg.LinAlgError
        except np.linalg.LinAlgError:
            raise ValueError(
                "y_pred holds scales that are not positive, or a matrix that is not positive "
                f"definite. Is covariance={reader.covariance.name!r} the structure that wrote it? "
                "Unconstrained numbers need from_raw=True."
            ) from None
        mean, scale, shape_params = parameters
        gaussian = _on_common_batch(mean, reader.covariance, scale, shape_params)
        return cls._of(gaussian, target_names)

    # --- moments ---------------------------------------------------------------------------------

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

    # --- density ---------------------------------------------------------------------------------

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

    def log_prob(self, y: Any, missing: str = "raise") -> Array:
        """log N(y; μ, Σ), in nats: (...).

        Args:
            y: (..., d), in the units of y; batch axes broadcast against those of the batch.
            missing: "marginalize" reads NaN as "not observed": the exact marginal density of what
                was. By default NaN is an error.

        Raises:
            ValueError: the last axis is not d, batch axes don't fit, or values are not finite.

        """
        z, half_log_det, observed = self._standardize(y, missing)
        return -0.5 * (z**2).sum(axis=-1) - half_log_det - 0.5 * observed * _LOG_2PI

    def _standardize(self, y: Any, missing: str) -> tuple[Array, Array, Any]:
        """z, ½ log det Σ and the number of targets, all of what was observed."""
        values, observed = observed_targets(y, missing, self.target_names)
        residual = self._residual(values)
        if observed is None:
            return *self._gaussian.whiten(residual), self.event_size
        mask = np.broadcast_to(observed, residual.shape)
        return *self._gaussian.whiten(np.where(mask > 0, residual, 0.0), mask), mask.sum(axis=-1)

    @property
    def half_log_det(self) -> Array:
        """½ log det Σ: (...)."""
        return self._gaussian.half_log_det()

    def entropy(self) -> Array:
        """½ log det(2πe Σ), in nats: (...)."""
        return self.half_log_det + 0.5 * self.event_size * (1.0 + _LOG_2PI)

    def _residual(self, values: Array) -> Array:
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

    # --- some of the targets, and functions of them ----------------------------------------------

    def marginal(self, targets: Any) -> Self:
        """The joint distribution of some targets, whatever the others are.

        Args:
            targets: names or indices, one or several, in the order wanted; or a slice.

        Raises:
            ValueError: an unknown target, one named twice, or none.

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
        measured = self._per_row(list(given.values()), "values")
        noise, exact = self._variances(variance, index)
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

    def _per_row(self, columns: list[Any], name: str) -> Array:
        """Numbers or (...) arrays, one for each of m targets: (..., m)."""
        arrays = [finite(column, name) for column in columns]
        for array in arrays:
            if self.batch_shape and array.ndim > len(self.batch_shape):
                raise ValueError(
                    f"{name} holds an array of shape {array.shape}; it takes one number, or one "
                    f"per distribution, of shape {self.batch_shape}."
                )
        with explained_shapes(name, [a.shape for a in arrays], self.batch_shape):
            np.broadcast_shapes(self.batch_shape, *(a.shape for a in arrays))
            return np.stack(np.broadcast_arrays(*arrays), axis=-1)

    def _variances(self, variance: Any, index: np.ndarray) -> tuple[Array, np.ndarray]:
        """Of the measurements' errors (..., m), and which targets have none: (m,)."""
        given = dict.fromkeys(index.tolist(), 0.0 if variance is None else variance)
        chosen = by_target(variance)
        if chosen is not None:
            given = dict.fromkeys(index.tolist(), 0.0)
            for target, value in chosen.items():
                at = position(target, self.target_names, self.event_size)
                if at not in given:
                    raise ValueError(
                        f"variance names target {target!r}, for which values has no measurement."
                    )
                given[at] = value
        columns = [np.array(value, dtype=np.float64) for value in given.values()]
        if not all((column >= 0).all() for column in columns):
            raise ValueError(f"variance={variance!r} must be ≥ 0, and inf where not measured.")
        exact = np.array([column.size > 0 and not column.any() for column in columns])
        if any((c == 0).any() and not known for c, known in zip(columns, exact, strict=True)):
            raise ValueError(
                "variance is 0 in some rows and positive in others for the same target; condition "
                "on these rows separately."
            )
        with explained_shapes("variance", [c.shape for c in columns], self.batch_shape):
            np.broadcast_shapes(self.batch_shape, *(c.shape for c in columns))
            return np.stack(np.broadcast_arrays(*columns), axis=-1), exact

    # --- probabilities and regions ---------------------------------------------------------------

    def interval(
        self,
        level: float = 0.9,
        simultaneous: str | None = None,
        samples: int = 10_000,
        seed: Any = 0,
    ) -> tuple[Array, Array]:
        """Lower and upper ends of the central interval of each target: (..., d) each.

        By default each target alone is inside its interval with probability `level`; all of them
        at once are so less often.

        Args:
            level: probability.
            simultaneous: for *all* targets inside at once with at least probability `level`:
                "bonferroni" (never too narrow), "sidak" (not too narrow for a normal, a
                little narrower; Šidák 1967), or "exact", the narrowest multiple of the standard
                deviations for each row's own correlations, by simulation.
            samples: draws per row for "exact"; the probability is then met to about
                √(level (1 − level) / samples).
            seed: of the draws, an integer or `numpy.random.Generator`.

        Raises:
            ValueError: level is not between 0 and 1, or `simultaneous` is not known.

        >>> normal = MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.9], [0.9, 1.0]])
        >>> for how in (None, "bonferroni", "sidak", "exact"):
        ...     print(how, normal.interval(0.9, how)[1].round(2))
        None [1.64 1.64]
        bonferroni [1.96 1.96]
        sidak [1.95 1.95]
        exact [1.78 1.78]

        """
        central = probability(level, "level")
        multiple = simultaneous_multiple(self._gaussian, central, simultaneous, samples, seed)
        reach = np.asarray(multiple)[..., None] * self.stddev
        return self.mean - reach, self.mean + reach

    def ellipsoid(self, level: float = 0.9) -> Ellipsoid:
        """The smallest region that holds all targets at once with probability `level`.

        (y − μ)ᵀ Σ⁻¹ (y − μ) ≤ c, c the `level` quantile of χ²_d.

        Raises:
            ValueError: level is not between 0 and 1.

        """
        return Ellipsoid(self, chi_square_quantile(probability(level, "level"), self.event_size))

    def cdf(self, y: Any) -> Array:
        """P(Y₁ ≤ y₁, …, Y_d ≤ y_d), all targets at once: (...).

        As `scipy.stats.multivariate_normal.cdf`; `probability(upper=y)` gives the error of the
        estimate, and takes limits by target. Of each target alone: `marginal_cdf`.

        Raises:
            ValueError: y that is NaN or doesn't fit.
            ImportError: SciPy is not installed.

        """
        return np.asarray(self.probability(upper=y))

    def marginal_cdf(self, y: Any) -> Array:
        """P(Yⱼ ≤ yⱼ) of each target alone: (..., d).

        Raises:
            ValueError: as `log_prob`.
            ImportError: SciPy is not installed.

        """
        residual = self._residual(limit(y, "y"))
        return np.asarray(require("scipy.special", "marginal_cdf").ndtr(residual / self.stddev))

    def quantile(self, q: Any) -> Array:
        """The value below which each target alone lies with probability q.

        Args:
            q: a probability, which gives (..., d), or (n,) of them: (n, ..., d).

        Raises:
            ValueError: q is not between 0 and 1.

        """
        levels = np.asarray(q, dtype=np.float64)
        z = [NormalDist().inv_cdf(probability(float(p), "q")) for p in levels.reshape(-1)]
        steps = np.array(z).reshape(*levels.shape, *(1,) * self.mean.ndim)
        return self.mean + steps * self.stddev

    def probability(
        self,
        lower: Any = -np.inf,
        upper: Any = np.inf,
        *,
        return_error: bool = False,
        samples: int = 4096,
        seed: int = 0,
    ) -> Any:
        """P(lower ≤ Y ≤ upper), all targets at once: (...).

        P(all below their limits) is `probability(upper=limits)`. Exact for one target and for
        independent ones; by SciPy's integrator for two; else by quasi-Monte-Carlo integration
        (Genz 1992, Botev 2017), for many targets of a low-rank structure over its factors.

        Args:
            lower: (..., d), one number per target, a number for all, or target → number or (...);
                −inf, and a target that is left out, for no limit.
            upper: the same; inf for no limit.
            return_error: return (probability, error), the error about two standard errors
                of the estimate.
            samples: points per row of the quasi-Monte-Carlo estimate.
            seed: of their random shifts; the same seed gives the same estimate.

        Raises:
            ValueError: limits that are NaN or don't fit.
            ImportError: SciPy is not installed.

        >>> normal = MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.5], [0.5, 1.0]])
        >>> normal.probability(upper=[0.0, 0.0]).round(6)  # ¼ + arcsin(½)/2π
        np.float64(0.333333)

        """
        box = limits(lower, upper, self.target_names, self.event_size)
        with explained_shapes("lower and upper", [a.shape for a in box], self.batch_shape):
            batch = np.broadcast_shapes(self.batch_shape, *(a.shape[:-1] for a in box))
        value, error = box_probability(
            self._gaussian.on_batch(batch), box[0], box[1], samples, seed
        )
        return (value, error) if return_error else value

    def probability_greater(self, target: Any, other: Any) -> Array:
        """P(target > other): (...)."""
        gap = self.difference(target, other)
        ndtr = require("scipy.special", "probability_greater").ndtr
        return np.asarray(ndtr(gap.mean / gap.stddev)[..., 0])

    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Random draws: (n, ..., d), or (..., d) for n=None.

        Args:
            n: number of draws from each distribution.
            seed: an integer or `numpy.random.Generator`; the same seed gives the same draws.

        """
        count = 1 if n is None else whole(n, "n", "None or a number of draws", 0)
        draws = self._gaussian.sample(count, np.random.default_rng(seed))
        return draws[0] if n is None else draws

    # --- compared with others, and fused ---------------------------------------------------------

    def kl_divergence(self, other: MultivariateNormal) -> Array:
        """KL(self ‖ other) = E log(p/q) under self, in nats: (...).

        ½ (tr Σ_q⁻¹ Σ_p + ‖μ_p − μ_q‖²_q − d) + ½ log det Σ_q − ½ log det Σ_p.
        O(d r²) between low-rank or diagonal distributions.

        Raises:
            ValueError: other targets, or batch shapes that don't fit.

        >>> p = MultivariateNormal([1.0], covariance=[[1.0]])
        >>> p.kl_divergence(MultivariateNormal([0.0], covariance=[[1.0]]))
        np.float64(0.5)

        """
        return _divergences.kullback_leibler(*self._with(other))

    def wasserstein2(self, other: MultivariateNormal) -> Array:
        """The 2-Wasserstein distance, in the units of y: (...).

        √(‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½): how far probability has to be
        carried. Targets of different units are added as they are. Forms d × d matrices.

        Raises:
            ValueError: other targets, or batch shapes that don't fit.

        Source: Givens & Shortt, "A class of Wasserstein metrics for probability distributions",
        Michigan Mathematical Journal 31 (1984).

        """
        return _divergences.wasserstein2(*self._with(other))

    def bhattacharyya(self, other: MultivariateNormal) -> Array:
        """The Bhattacharyya distance −log ∫ √(p q), symmetric, in nats: (...).

        ⅛ ‖μ₁ − μ₂‖² in the metric of Σ̄ = ½ (Σ₁ + Σ₂), plus ½ log det Σ̄ and less
        ¼ (log det Σ₁ + log det Σ₂).

        Raises:
            ValueError: other targets, or batch shapes that don't fit.

        Source: Kailath, "The divergence and Bhattacharyya distance measures in signal selection",
        IEEE Transactions on Communication Technology 15 (1967).

        """
        return _divergences.bhattacharyya(*self._with(other))

    def mutual_information(self, targets: Any, others: Any) -> Array:
        """What one group of targets says about another, in nats: (...).

        ½ log det Σ_aa + ½ log det Σ_bb − ½ log det of both together; 0 if they are independent.

        Args:
            targets: names or indices, one or several.
            others: the same, none of them in `targets`.

        Raises:
            ValueError: unknown targets, none, or one in both groups.

        >>> normal = MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.6], [0.6, 1.0]])
        >>> normal.mutual_information(0, 1).round(6)  # −½ log(1 − 0.6²)
        np.float64(0.223144)

        """
        a = positions(targets, self.target_names, self.event_size)
        b = positions(others, self.target_names, self.event_size)
        if set(a) & set(b):
            raise ValueError(f"targets={targets!r} and others={others!r} have a target in common.")
        both = np.concatenate([a, b])
        return sum(self._gaussian.marginal(i).half_log_det() for i in (a, b)) - (
            self._gaussian.marginal(both).half_log_det()
        )

    def combine(self, other: MultivariateNormal) -> Self:
        """The product of two densities: two predictions with *independent* errors, fused.

        Σ⁻¹ = Σ₁⁻¹ + Σ₂⁻¹, each mean weighted by its precision. Predictions that share data or a
        model are not independent: this then counts their common evidence twice and is
        overconfident. Use `covariance_intersection`.

        Raises:
            ValueError: other targets, or batch shapes that don't fit.

        >>> p = MultivariateNormal([0.0], covariance=[[1.0]])
        >>> p.combine(MultivariateNormal([4.0], covariance=[[3.0]])).mean
        array([1.])

        """
        return self._of(_fusion.product(*self._with(other)), self._names_with(other))

    def covariance_intersection(self, other: MultivariateNormal, weight: Any = None) -> Self:
        """Two predictions whose errors are correlated in an unknown way, fused safely.

        Σ⁻¹ = ω Σ₁⁻¹ + (1 − ω) Σ₂⁻¹, never smaller than what any correlation allows.

        Args:
            other: the second prediction.
            weight: ω in [0, 1], a number or (...); None: the one that makes det Σ smallest, for
                each row.

        Raises:
            ValueError: other targets, batch shapes that don't fit, or a weight outside [0, 1].

        Source: Julier & Uhlmann, "A non-divergent estimation algorithm in the presence of unknown
        correlations", American Control Conference 1997.

        """
        weights = None if weight is None else finite(weight, "weight")
        if weights is not None and not ((weights >= 0) & (weights <= 1)).all():
            raise ValueError(f"weight={weight!r} must be between 0 and 1.")
        pair = self._with(other)
        if weights is not None:
            with explained_shapes("weight", weights.shape, pair[0].batch_shape):
                weights = np.broadcast_to(weights, pair[0].batch_shape)
        return self._of(_fusion.covariance_intersection(*pair, weights), self._names_with(other))

    def _names_with(self, other: MultivariateNormal) -> tuple[str, ...] | None:
        return other.target_names if self.target_names is None else self.target_names

    def _with(self, other: MultivariateNormal) -> tuple[Gaussian, Gaussian]:
        """Both on common batch axes."""
        if not isinstance(other, MultivariateNormal):
            raise TypeError(
                f"Expected another MultivariateNormal, received {type(other).__name__}."
                + (" Its `moments()` are one." if hasattr(other, "moments") else "")
            )
        if other.event_size != self.event_size:
            raise ValueError(
                f"The distributions have {self.event_size} and {other.event_size} targets."
            )
        if None not in (self.target_names, other.target_names) and (
            self.target_names != other.target_names
        ):
            raise ValueError(
                f"The distributions have targets {self.target_names} and {other.target_names}. "
                "`marginal` brings targets into another order."
            )
        with explained_shapes("the other distribution", other.batch_shape, self.batch_shape):
            batch = np.broadcast_shapes(self.batch_shape, other.batch_shape)
        return self._gaussian.on_batch(batch), other._gaussian.on_batch(batch)

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

    # --- to and from elsewhere -------------------------------------------------------------------

    def to_frame(self, index: Any = None, level: float | None = None) -> Any:
        """A pandas table with one row per distribution: means, standard deviations, correlations.

        Columns `<target>_mean`, `<target>_stddev`, with `level` also `<target>_lower` and `_upper`
        of that central interval, and `<target>_<other>_correlation` of every pair.

        Args:
            index: of the rows.
            level: of the intervals; None: none.

        Raises:
            ValueError: more than one batch axis.
            ImportError: pandas is not installed.

        """
        return _exchange.to_frame(self, index, level)

    def to_scipy(self) -> Any:
        """`scipy.stats.multivariate_normal`: one frozen object, or a list of them for a batch.

        Raises:
            ImportError: SciPy is not installed.

        """
        return _exchange.to_scipy(self)

    def to_torch(self) -> Any:
        """`torch.distributions.MultivariateNormal`, or its low-rank form, in float64.

        Raises:
            ImportError: PyTorch is not installed.

        """
        return _exchange.to_torch(self._gaussian)

    def to_numpyro(self) -> Any:
        """`numpyro.distributions.MultivariateNormal`, or its low-rank form, in JAX's precision.

        Raises:
            ImportError: NumPyro is not installed.

        """
        return _exchange.to_numpyro(self._gaussian)

    def save(self, path: Any) -> None:
        """Write the distributions, structure and names to a `.npz` or `.parquet` file.

        A file that exists is replaced only once the new one is complete.

        Raises:
            ValueError: another suffix, or Parquet and more than one batch axis.
            ImportError: Parquet, and pyarrow is not installed.

        """
        _storage.save(self._gaussian, self.target_names, path)

    @classmethod
    def load(cls, path: Any) -> Self:
        """What `save` wrote.

        Raises:
            ValueError: another suffix, or a file that `save` did not write.
            ImportError: Parquet, and pyarrow is not installed.

        """
        return cls._of(*_storage.load(path))

    # --- a sequence of distributions -------------------------------------------------------------

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

    def __repr__(self) -> str:
        targets = "" if self.target_names is None else f", targets={list(self.target_names)}"
        return (
            f"MultivariateNormal(batch_shape={self.batch_shape}, event_size={self.event_size}, "
            f"covariance={self._gaussian.structure.name!r}{targets})"
        )


_LOG_2PI = float(np.log(2.0 * np.pi))


def _constant(value: Any) -> Array:
    """The other side of + and *; not a distribution, with which no joint one would be known."""
    if isinstance(value, MultivariateNormal):
        raise TypeError(
            "Sums and products of two distributions need their joint covariance. For targets of "
            "one distribution use `sum`, `difference` or `affine`; to fuse two "
            "predictions, `combine` or `covariance_intersection`."
        )
    return finite(value, "the constant")


def _on_common_batch(
    mean: Array, structure: Covariance, scale: Array, shape_params: Array
) -> Gaussian:
    try:
        batch = np.broadcast_shapes(mean.shape[:-1], scale.shape[:-1])
    except ValueError:
        raise ValueError(
            f"mean has batch shape {mean.shape[:-1]} and the matrices have {scale.shape[:-1]}, "
            "which do not broadcast."
        ) from None
    return Gaussian(structure.wire, mean, scale, shape_params).on_batch(batch)


def _from_covariance(matrix: Array) -> tuple[Covariance, Array, Array]:
    return Cholesky(), *Cholesky().from_covariance(symmetric(matrix, "covariance"))


def _from_precision(matrix: Array) -> tuple[Covariance, Array, Array]:
    structure = PrecisionCholesky()
    return structure, *structure.from_precision(symmetric(matrix, "precision"))


def _from_scale_tril(matrix: Array) -> tuple[Covariance, Array, Array]:
    return Cholesky(), *Cholesky().from_matrix(lower_triangular(matrix))


_READ = {
    "covariance": _from_covariance,
    "scale_tril": _from_scale_tril,
    "precision": _from_precision,
}
