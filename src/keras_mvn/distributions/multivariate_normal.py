"""Batches of predicted multivariate normals, for analysis in NumPy float64."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import (
    explained_shapes,
    finite,
    limit,
    lower_triangular,
    probability,
    square,
    symmetric,
    whole,
)
from keras_mvn._core.chi_square import chi_square_quantile
from keras_mvn._core.optional import require
from keras_mvn._core.targets import (
    in_order,
    limits,
    names_of_targets,
)
from keras_mvn._core.types import Array
from keras_mvn.covariances import DEFAULT, Cholesky, Covariance, CovarianceLike, PrecisionCholesky
from keras_mvn.distributions import _exchange, _storage
from keras_mvn.distributions._algebra import Algebra
from keras_mvn.distributions._arguments import labels, mean_in_order, ordered_by_labels
from keras_mvn.distributions._comparison import Comparison
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions.probability.box import box_probability
from keras_mvn.distributions.probability.simultaneous import simultaneous_multiple
from keras_mvn.distributions.regions import Ellipsoid
from keras_mvn.layouts import Reader

__all__ = ["MultivariateNormal"]


@final
class MultivariateNormal(Algebra, Comparison):
    """A batch of multivariate normal distributions N(μ, Σ), for analysis in float64.

    Create it from a model's predictions with `head.distribution(y_pred)` or `from_prediction`, or
    from a mean and exactly one of covariance, scale_tril and precision. There may be any number of
    batch axes, including none; `len`, indexing and slicing act on them.

    Args:
        mean: μ, (..., d), in the units of y.
        covariance: Σ, (..., d, d) symmetric positive definite, in squared units of y.
        scale_tril: L with Σ = L Lᵀ, (..., d, d) lower triangular with a positive diagonal.
        precision: Σ⁻¹, (..., d, d) symmetric positive definite.
        target_names: d names. None takes the columns of a DataFrame or the index of a Series; if
            mean and matrix both have labels, the matrix is put in the order of the mean.

    Raises:
        ValueError: not exactly one of the three is given, shapes do not fit, values are not
            finite, a matrix is not symmetric positive definite, or labels are those of other
            targets.

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
        matrices = {"covariance": covariance, "scale_tril": scale_tril, "precision": precision}
        given = {name: value for name, value in matrices.items() if value is not None}
        if len(given) != 1:
            raise ValueError(
                "MultivariateNormal takes exactly one of covariance, scale_tril and precision; "
                f"received {sorted(given) or 'none'}."
            )
        ((name, value),) = given.items()
        found = labels(mean) if target_names is None else target_names
        location = finite(mean_in_order(mean, found), "mean")
        matrix = square(ordered_by_labels(value, name, found), name, location.shape[-1:])
        self._gaussian = _on_common_batch(location, *_READ[name](matrix))
        self.target_names = names_of_targets(found or labels(value), location.shape[-1])

    @classmethod
    def from_prediction(
        cls,
        y_pred: Any,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        target_names: Sequence[str] | None = None,
    ) -> Self:
        """Create the distributions that a model predicted.

        Args:
            y_pred: output of `model.predict`, (..., 2 d + k) in the packed layout.
            covariance: covariance structure of the head, which `head.distribution` knows.
            from_raw: as passed to the loss.
            layout: as passed to the loss.
            target_names: d names, or None.

        Raises:
            ValueError: y_pred has a width that the structure cannot read, values are not finite,
                or scales are not positive.

        >>> normal = MultivariateNormal.from_prediction([[1.0, 2.0, 0.5, 0.5, 0.0]])
        >>> normal
        MultivariateNormal(batch_shape=(1,), event_size=2, covariance='cholesky')

        """
        reader = Reader(covariance, from_raw, layout)
        try:
            with np.errstate(all="ignore"):  # checked below
                parameters = reader.decode(finite(y_pred, "y_pred"))
            valid = (parameters.scale > 0) & np.isfinite(parameters.scale)
            if not valid.all() or not np.isfinite(parameters.shape_params).all():
                raise np.linalg.LinAlgError
        except np.linalg.LinAlgError:
            raise ValueError(
                "y_pred contains scales that are not positive, or a matrix that is not positive "
                f"definite. Is covariance={reader.covariance.name!r} the structure of the head? "
                "For unconstrained outputs, pass from_raw=True."
            ) from None
        mean, scale, shape_params = parameters
        gaussian = _on_common_batch(mean, reader.covariance, scale, shape_params)
        return cls._of(gaussian, target_names)

    # --- density ---------------------------------------------------------------------------------

    def log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density log N(y; μ, Σ), in nats: (...).

        Args:
            y: (..., d), values of the targets; batch axes broadcast against those of the batch.
            missing: "marginalize" treats NaN as missing, which gives the exact marginal density of
                the observed targets. By default, NaN is an error.

        Raises:
            ValueError: the last axis is not d, batch axes do not fit, or values are not finite.

        """
        z, half_log_det, observed = self._standardize(y, missing)
        return -0.5 * (z**2).sum(axis=-1) - half_log_det - 0.5 * observed * _LOG_2PI

    def entropy(self) -> Array:
        """The entropy ½ log det(2πe Σ), in nats: (...)."""
        return self.half_log_det + 0.5 * self.event_size * (1.0 + _LOG_2PI)

    # --- probabilities and regions ---------------------------------------------------------------

    def interval(
        self,
        level: float = 0.9,
        simultaneous: str | None = None,
        samples: int = 10_000,
        seed: Any = 0,
    ) -> tuple[Array, Array]:
        """Lower and upper ends of the central interval of each target: (..., d) each.

        By default, each target alone is inside its interval with probability `level`; all of them
        at once are inside less often.

        Args:
            level: probability, between 0 and 1.
            simultaneous: method by which *all* targets are inside at once with at least probability
                `level`: "bonferroni" (never too narrow), "sidak" (a little narrower, and not too
                narrow for a normal; Šidák 1967), or "exact", the narrowest multiple of the standard
                deviations for each row's own correlations, by simulation.
            samples: number of draws per row for "exact"; the probability is then accurate to about
                √(level (1 − level) / samples).
            seed: seed of the draws, an integer or `numpy.random.Generator`.

        Raises:
            ValueError: level is not between 0 and 1, or `simultaneous` is unknown.

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
        """The smallest region that contains all targets at once with probability `level`.

        (y − μ)ᵀ Σ⁻¹ (y − μ) ≤ c, where c is the `level` quantile of χ²_d.

        Raises:
            ValueError: level is not between 0 and 1.

        """
        return Ellipsoid(self, chi_square_quantile(probability(level, "level"), self.event_size))

    def cdf(self, y: Any) -> Array:
        """The joint distribution function P(Y₁ ≤ y₁, …, Y_d ≤ y_d): (...).

        As `scipy.stats.multivariate_normal.cdf`. `probability(upper=y)` can also return the error
        of the estimate, and takes limits by target; `marginal_cdf` is for each target alone.

        Raises:
            ValueError: y is NaN or does not fit.
            ImportError: SciPy is not installed.

        """
        return np.asarray(self.probability(upper=y))

    def marginal_cdf(self, y: Any) -> Array:
        """The distribution function P(Yⱼ ≤ yⱼ) of each target: (..., d).

        Raises:
            ValueError: y is NaN or does not fit.
            ImportError: SciPy is not installed.

        """
        residual = self.residual(limit(in_order(y, self.target_names), "y"))
        return np.asarray(require("scipy.special", "marginal_cdf").ndtr(residual / self.stddev))

    def quantile(self, q: Any) -> Array:
        """The quantile of each target, below which it lies with probability q.

        Args:
            q: one probability, which gives (..., d), or (n,) probabilities, which give (n, ..., d).

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
        """The probability P(lower ≤ Y ≤ upper), all targets at once: (...).

        The probability of all targets being below their limits is `probability(upper=limits)`. The
        result is exact for one target and for independent targets; two targets use SciPy's
        integrator; the rest uses quasi-Monte-Carlo integration (Genz 1992, Botev 2017), over the
        factors if a low-rank structure has many targets.

        Args:
            lower: (..., d), one number per target, one number for all, or a mapping from target to
                a number or (...); −inf, or leaving a target out, means no limit.
            upper: the same for upper limits; inf means no limit.
            return_error: whether to return (probability, error), where the error is about two
                standard errors of the estimate.
            samples: number of points per row of the quasi-Monte-Carlo estimate.
            seed: seed of their random shifts; the same seed gives the same estimate.

        Raises:
            ValueError: limits are NaN or do not fit.
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
        """The probability that `target` is greater than `other`: (...)."""
        gap = self.difference(target, other)
        ndtr = require("scipy.special", "probability_greater").ndtr
        return np.asarray(ndtr(gap.mean / gap.stddev)[..., 0])

    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Draw random values: (n, ..., d), or (..., d) for n=None.

        Args:
            n: number of draws from each distribution.
            seed: an integer or `numpy.random.Generator`; the same seed gives the same draws.

        """
        count = 1 if n is None else whole(n, "n", "None or a number of draws", 0)
        draws = self._gaussian.sample(count, np.random.default_rng(seed))
        return draws[0] if n is None else draws

    # --- conversion and files --------------------------------------------------------------------

    def to_frame(self, index: Any = None, level: float | None = None) -> Any:
        """Return a pandas table with means, standard deviations and correlations as columns.

        There is one row per distribution. Columns are `<target>_mean`, `<target>_stddev`, with
        `level` also `<target>_lower` and `<target>_upper` of that central interval, and
        `<target>_<other>_correlation` of every pair.

        Args:
            index: index of the table's rows.
            level: probability of the intervals; None for no intervals.

        Raises:
            ValueError: there is more than one batch axis.
            ImportError: pandas is not installed.

        """
        bounds = () if level is None else self.interval(level)
        return _exchange.to_frame(self, bounds, index)

    def to_scipy(self) -> Any:
        """Convert to a frozen `scipy.stats.multivariate_normal`, or a list of them for a batch.

        Raises:
            ImportError: SciPy is not installed.

        """
        return _exchange.to_scipy(self)

    def to_torch(self) -> Any:
        """Convert to `torch.distributions.MultivariateNormal`, or its low-rank form, in float64.

        Raises:
            ImportError: PyTorch is not installed.

        """
        return _exchange.to_torch(self._gaussian)

    def to_numpyro(self) -> Any:
        """Convert to `numpyro.distributions.MultivariateNormal`, or its low-rank form.

        The precision is that of JAX.

        Raises:
            ImportError: NumPyro is not installed.

        """
        return _exchange.to_numpyro(self._gaussian)

    def save(self, path: Any) -> None:
        """Save distributions, structure and target names to a `.npz` or `.parquet` file.

        An existing file is replaced only once the new one is complete.

        Raises:
            ValueError: the suffix is unknown, or a Parquet file is requested without exactly one
                batch axis.
            ImportError: a Parquet file is requested, and pyarrow is not installed.

        """
        _storage.save(self._gaussian, self.target_names, path)

    @classmethod
    def load(cls, path: Any) -> Self:
        """Load distributions from a file written by `save`.

        Raises:
            ValueError: the suffix is unknown, or the file was not written by `save`.
            ImportError: it is a Parquet file, and pyarrow is not installed.

        """
        return cls._of(*_storage.load(path))

    def __repr__(self) -> str:
        targets = "" if self.target_names is None else f", targets={list(self.target_names)}"
        return (
            f"MultivariateNormal(batch_shape={self.batch_shape}, event_size={self.event_size}, "
            f"covariance={self._gaussian.structure.name!r}{targets})"
        )


_LOG_2PI = float(np.log(2.0 * np.pi))


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
