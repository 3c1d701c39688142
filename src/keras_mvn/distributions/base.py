"""What every predicted distribution can be asked: the base of all answers.

Scores, calibration, plots, reports, the estimator and the command ask this base, and know none of
its subclasses by name. An answer that cannot give something exactly estimates it and says how well,
or refuses with a reason; none gives the answer of another distribution instead.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from keras_mvn._core.checks import explained_shapes, probability
from keras_mvn._core.types import Array
from keras_mvn.distributions import _exchange
from keras_mvn.distributions._arguments import Measurements
from keras_mvn.distributions._files import Files
from keras_mvn.distributions._parts import Part

__all__ = ["Distribution", "correlation_of", "require_distribution"]


class Distribution(Files):
    """A batch of joint distributions of d targets; (...) are its batch axes.

    `len`, indexing and slicing act on the batch axes, of which there may be any number, including
    none.
    """

    # --- targets ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def with_names(self, target_names: Sequence[str] | None) -> Self:
        """The same distributions, with different target names.

        Args:
            target_names: d names, or None for no names.

        Raises:
            ValueError: the number of names is not d, or a name is repeated.

        """

    # --- moments ---------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def mean(self) -> Array:
        """The mean, in the units of y: (..., d)."""

    @property
    @abc.abstractmethod
    def center(self) -> Array:
        """A point in the middle of each distribution, which exists even if there is no mean."""

    @property
    @abc.abstractmethod
    def variance(self) -> Array:
        """The variances, in squared units of y: (..., d)."""

    @property
    @abc.abstractmethod
    def covariance(self) -> Array:
        """The covariance, in squared units of y: (..., d, d)."""

    @property
    def stddev(self) -> Array:
        """Standard deviations, in the units of y: (..., d)."""
        return np.sqrt(self.variance)

    @property
    def correlation(self) -> Array:
        """Correlation matrices, with an exact unit diagonal: (..., d, d)."""
        return correlation_of(self.covariance)

    @property
    def median(self) -> Array:
        """The median of each target, in the units of y: (..., d)."""
        return self.quantile(0.5)

    # --- density and draws -----------------------------------------------------------------------

    @abc.abstractmethod
    def log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density at y, in nats: (...).

        Args:
            y: (..., d), values of the targets; batch axes broadcast against those of the batch.
            missing: "marginalize" treats NaN as missing, which gives the exact marginal density of
                the observed targets. By default, NaN is an error.

        Raises:
            ValueError: the last axis is not d, batch axes do not fit, or values are not finite.

        """

    @abc.abstractmethod
    def marginal_log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density of each target alone, in nats: (..., d); NaN where y is missing.

        Arguments and errors are those of `log_prob`.
        """

    @abc.abstractmethod
    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Draw random values: (n, ..., d), or (..., d) for n=None.

        Args:
            n: number of draws from each distribution.
            seed: an integer or `numpy.random.Generator`; the same seed gives the same draws.

        """

    @abc.abstractmethod
    def entropy(self, *, return_error: bool = False, samples: int = 4096, seed: Any = 0) -> Any:
        """The entropy −E log p, in nats: (...).

        Args:
            return_error: whether to return (entropy, error), where the error is about two standard
                errors of the estimate, and 0 where there is a closed form.
            samples: number of draws per distribution of an estimate.
            seed: seed of these draws.

        """

    def kl_divergence(
        self, other: Distribution, *, return_error: bool = False, samples: int = 4096, seed: Any = 0
    ) -> Any:
        """The divergence KL(self ‖ other) = E log(p/q) under self, in nats: (...).

        In closed form between two normals, otherwise the mean over draws from self.

        Args:
            other: distributions of the same targets.
            return_error: whether to return (divergence, error), where the error is about two
                standard errors of the estimate, and 0 where there is a closed form.
            samples: number of draws per distribution of an estimate.
            seed: seed of these draws.

        Raises:
            ValueError: targets differ, or batch shapes do not fit.

        """
        self.check_same_targets(other)
        y = self.sample(samples, seed)
        return _mean(self.log_prob(y) - other.log_prob(y), return_error)

    # --- parts and functions of the targets ------------------------------------------------------

    @abc.abstractmethod
    def marginal(self, targets: Any) -> Self:
        """The marginal distribution of some of the targets.

        Args:
            targets: one or several names or indices, in the desired order, or a slice.

        Raises:
            ValueError: a target is unknown or repeated, or there is none.

        """

    def condition(
        self, values: Mapping[Any, Any], variance: Mapping[Any, Any] | float | None = None
    ) -> Distribution:
        """The distribution of the remaining targets, given measurements of some.

        Targets measured exactly are dropped from the result; those measured with an error remain,
        with their updated distribution.

        Args:
            values: mapping from target (name or index) to measured value, in the units of y: one
                number, or one per distribution (...).
            variance: variances of the measurement errors, which are independent and normal, in
                squared units of y: mapping from target to a number or (...), or one number for all.
                Targets not in the mapping are exact, as are all for None. Infinite means not
                measured in this row (the value is then ignored, but must be finite).

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
        measured = Measurements.read(
            values, variance, self.target_names, self.event_size, self.batch_shape
        )
        return self._conditioned(measured)[0]

    @abc.abstractmethod
    def _conditioned(self, measured: Measurements) -> tuple[Distribution, Array]:
        """The distribution given measurements, and the log-density of these: (...)."""

    # --- probabilities and regions ---------------------------------------------------------------

    @abc.abstractmethod
    def marginal_cdf(self, y: Any) -> Array:
        """The distribution function P(Yⱼ ≤ yⱼ) of each target: (..., d).

        Raises:
            ValueError: y is NaN or does not fit.
            ImportError: SciPy is not installed.

        """

    def quantile(self, q: Any) -> Array:
        """The quantile of each target, below which it lies with probability q.

        Args:
            q: one probability, which gives (..., d), or (n,) probabilities, which give (n, ..., d).

        Raises:
            ValueError: q is not between 0 and 1.

        """
        levels = np.asarray(q, dtype=np.float64)
        values = [probability(float(p), "q") for p in levels.reshape(-1)]
        found = [self._quantile_at(np.full((1,), p)) for p in values]
        shape = (*self.batch_shape, self.event_size)
        return np.reshape(found, (*levels.shape, *shape)) if found else np.zeros((0, *shape))

    @abc.abstractmethod
    def _quantile_at(self, p: Array) -> Array:
        """The quantile of each target at probabilities (..., 1): (..., d)."""

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
                narrow for elliptical distributions; Šidák 1967), or "exact", the narrowest
                intervals of equal probability for each row's own dependence, by simulation.
            samples: number of draws per row for "exact"; the probability is then accurate to about
                √(level (1 − level) / samples).
            seed: seed of the draws, an integer or `numpy.random.Generator`.

        Raises:
            ValueError: level is not between 0 and 1, or `simultaneous` is unknown.

        """
        outside = self._outside(probability(level, "level"), simultaneous, samples, seed)
        return self._quantile_at(0.5 * outside), self._quantile_at(1.0 - 0.5 * outside)

    def _outside(self, level: float, how: str | None, samples: int, seed: Any) -> Array:
        """The probability outside the interval of a single target: (..., 1)."""
        if how is None or (how == "exact" and self.event_size == 1):
            return np.full(1, 1.0 - level)
        if how == "bonferroni":
            return np.full(1, (1.0 - level) / self.event_size)
        if how == "sidak":
            raise ValueError(
                f"simultaneous='sidak' is a theorem on elliptical distributions, and a "
                f"{type(self).__name__} is not one. Use 'bonferroni' or 'exact'."
            )
        if how != "exact":
            raise ValueError(
                f"simultaneous={how!r} is not known. Expected None, 'bonferroni', 'sidak' or "
                "'exact'."
            )
        draws = self.sample(samples, seed)
        farthest = np.abs(2.0 * self.marginal_cdf(draws) - 1.0).max(axis=-1)
        return 1.0 - np.quantile(farthest, level, axis=0)[..., None]

    def cdf(self, y: Any) -> Array:
        """The joint distribution function P(Y₁ ≤ y₁, …, Y_d ≤ y_d): (...).

        `probability(upper=y)` can also return the error of the estimate, and takes limits by
        target; `marginal_cdf` is for each target alone.

        Raises:
            ValueError: y is NaN or does not fit.
            ImportError: SciPy is not installed.

        """
        return np.asarray(self.probability(upper=y))

    @abc.abstractmethod
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

        Args:
            lower: (..., d), one number per target, one number for all, or a mapping from target to
                a number or (...); −inf, or leaving a target out, means no limit.
            upper: the same for upper limits; inf means no limit.
            return_error: whether to return (probability, error), where the error is about two
                standard errors of the estimate.
            samples: number of points per row of an estimate.
            seed: seed of their random shifts; the same seed gives the same estimate.

        Raises:
            ValueError: limits are NaN or do not fit.
            ImportError: SciPy is not installed.

        """

    def probability_greater(self, target: Any, other: Any) -> Array:
        """The probability that `target` is greater than `other`: (...)."""
        gap = self.difference(target, other)
        return np.asarray(1.0 - gap.marginal_cdf(np.zeros(1))[..., 0])

    @abc.abstractmethod
    def region(self, level: float = 0.9) -> Any:
        """The region that contains all targets at once with probability `level`.

        It has `contains(y)`, `log_volume` and `volume`.

        Raises:
            ValueError: level is not between 0 and 1.

        """

    @abc.abstractmethod
    def region_level(self, y: Any, missing: str = "raise") -> Array:
        """The probability of the smallest `region` that contains y: (...).

        It is uniform on (0, 1) if the distributions are right. Arguments and errors are those of
        `log_prob`; the level of a row without any observed value is 0.
        """

    # --- what scores and calibration need --------------------------------------------------------

    def nonconformity(self, y: Any, missing: str = "raise") -> Array:
        """How far outside y is, a number that grows from region to larger region: (...).

        For elliptical distributions the squared Mahalanobis distance, for others `region_level`.
        Conformal regions hold all y up to a value of it.

        Args:
            y: as in `log_prob`.
            missing: as in `log_prob`; of what was observed, then.

        """
        return self.region_level(y, missing)

    def region_up_to(self, nonconformity: float) -> Any:
        """The region of all y whose `nonconformity` is at most this: see `region`."""
        return self.region(min(max(nonconformity, SMALLEST_LEVEL), 1.0 - SMALLEST_LEVEL))

    @abc.abstractmethod
    def moments(self) -> Any:
        """The `MultivariateNormal` with the same mean and covariance.

        It is the normal closest to the distribution in KL(distribution ‖ normal).
        """

    @abc.abstractmethod
    def parts(self) -> tuple[Part, ...] | None:
        """The elliptical distributions of which each distribution is a mixture, or None."""

    def widened(self, spread: Array) -> Any:
        """The same distributions with Σ s sᵀ added to their covariances; means stay.

        Args:
            spread: (m, ..., d), the vectors s.

        Raises:
            TypeError: they are neither elliptical nor mixtures of elliptical ones.

        """
        return self.require_elliptical("widened").widened(spread)

    def require_elliptical(self, who: str) -> Any:
        """These distributions, if the formulas of `who` apply to them.

        Raises:
            TypeError: they are not elliptical.

        """
        raise TypeError(
            f"{who} takes elliptical distributions (a MultivariateNormal or a MultivariateStudentT)"
            f", received {type(self).__name__}. Its closest normal is `.moments()`; pass that "
            "instead."
        )

    def check_same_targets(self, other: Any) -> None:
        """Check that another batch has the same targets, and batch axes that broadcast.

        Raises:
            TypeError: `other` is not a distribution.
            ValueError: targets differ, or batch shapes do not fit.

        """
        if not isinstance(other, Distribution):
            raise TypeError(f"Expected another distribution, received {type(other).__name__}.")
        if other.event_size != self.event_size:
            raise ValueError(
                f"The distributions have {self.event_size} and {other.event_size} targets; they "
                "must have the same targets."
            )
        if None not in (self.target_names, other.target_names) and (
            self.target_names != other.target_names
        ):
            raise ValueError(
                f"The distributions have targets {self.target_names} and {other.target_names}; "
                "these must be the same, in the same order. `marginal` puts targets in another "
                "order."
            )
        with explained_shapes("the other distribution", other.batch_shape, self.batch_shape):
            np.broadcast_shapes(self.batch_shape, other.batch_shape)

    def common_shape(self, values: Array) -> tuple[int, ...]:
        """The shape (..., d) of values (..., d) on the batch axes.

        Raises:
            ValueError: the last axis is not d, or batch axes do not fit.

        """
        if values.shape[-1:] != (self.event_size,):
            raise ValueError(
                f"y has shape {values.shape}; these distributions have {self.event_size} targets "
                f"and batch shape {self.batch_shape}, so it must be (..., {self.event_size})."
            )
        try:
            batch = np.broadcast_shapes(values.shape[:-1], self.batch_shape)
        except ValueError:
            raise ValueError(
                f"y has batch shape {values.shape[:-1]}, which does not broadcast against the "
                f"batch shape {self.batch_shape} of the distributions."
            ) from None
        return (*batch, self.event_size)

    # --- batch axes, conversion and files --------------------------------------------------------

    @abc.abstractmethod
    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Self:
        """The same distributions, repeated along new batch axes, as `numpy.broadcast_to`."""

    @abc.abstractmethod
    def flatten(self) -> Self:
        """The same distributions with one batch axis, in C order; (1,) for a single one."""

    def to_frame(
        self, index: Any = None, level: float | None = None, correlations: bool = True
    ) -> Any:
        """Return a pandas table with means, standard deviations and correlations as columns.

        There is one row per distribution. Columns are `<target>_mean`, `<target>_stddev`, with
        `level` also `<target>_lower` and `<target>_upper` of that central interval, and
        `<target>_<other>_correlation` of every pair.

        Args:
            index: index of the table's rows.
            level: probability of the intervals; None for no intervals.
            correlations: whether there are columns for pairs of targets.

        Raises:
            ValueError: there is more than one batch axis, or mean or covariance do not exist.
            ImportError: pandas is not installed.

        """
        bounds = () if level is None else self.interval(level)
        return _exchange.to_frame(self, bounds, index, correlations)


SMALLEST_LEVEL = 1e-9
"""Distance of the level of a region from 0 and 1, at which regions end."""


def correlation_of(matrix: Array) -> Array:
    """Return the correlations of covariances or scale matrices, with an exact unit diagonal."""
    root = np.sqrt(np.diagonal(matrix, axis1=-2, axis2=-1))
    correlation = matrix / root[..., :, None] / root[..., None, :]
    index = np.arange(matrix.shape[-1])
    correlation[..., index, index] = 1.0
    return np.asarray(correlation)


def require_distribution(given: Any) -> Any:
    """Check that a function that takes predicted distributions received some.

    Raises:
        TypeError: it received something else, such as y_pred.

    """
    if isinstance(given, Distribution):
        return given
    raise TypeError(
        f"Expected predicted distributions, such as a MultivariateNormal, received "
        f"{type(given).__name__}. For the predictions of a model, pass `head.distribution(y_pred)`."
    )


def _mean(values: Array, return_error: bool) -> Any:
    """Average over draws, (n, ...), and two standard errors."""
    value = values.mean(axis=0)
    if not return_error:
        return value
    return value, 2.0 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
