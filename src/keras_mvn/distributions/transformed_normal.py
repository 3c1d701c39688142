"""Likelihoods, moments and regions of targets that are normal after a monotone transform.

t = T(y) for each target, and t ~ N(μ, Σ). With the derivative T',

    log p(y) = log N(T(y); μ, Σ) + Σⱼ log |Tⱼ'(yⱼ)|.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import finite, fitting, probability
from keras_mvn._core.targets import in_order, limits, observed_targets, positions, target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions._batch import Batch
from keras_mvn.distributions._transforms import TargetTransform
from keras_mvn.distributions.multivariate_normal import MultivariateNormal
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["TransformedNormal", "TransformedRegion", "ordered"]


@final
class TransformedNormal(Batch):
    """A batch of distributions of y with T(y) ~ N(μ, Σ), T monotone in each target.

    Args:
        normal: distribution of T(y).
        transform: the transform T.

    """

    def __init__(self, normal: MultivariateNormal, transform: TargetTransform) -> None:
        self.normal, self.transform = normal, transform

    # --- moments, in the units of y ---

    @property
    def mean(self) -> Array:
        """The mean E y, which is not T⁻¹(μ): (..., d)."""
        return self.transform.moments(self.normal, dense=False)[0]

    @property
    def median(self) -> Array:
        """The median T⁻¹(μ): (..., d)."""
        return self.transform.inverse(self.normal.mean)

    @property
    def variance(self) -> Array:
        """The variances, in squared units of y: (..., d)."""
        return self.transform.moments(self.normal, dense=False)[1]

    @property
    def stddev(self) -> Array:
        """Standard deviations, in the units of y: (..., d)."""
        return np.sqrt(self.variance)

    @property
    def covariance(self) -> Array:
        """The covariance, in squared units of y: (..., d, d)."""
        return self.transform.moments(self.normal, dense=True)[1]

    @property
    def correlation(self) -> Array:
        """Correlation matrices of y: (..., d, d)."""
        stddev = self.stddev
        return self.covariance / (stddev[..., :, None] * stddev[..., None, :])

    # --- marginals and conditioning ---

    def marginal(self, targets: Any) -> TransformedNormal:
        """The marginal distribution of some of the targets, as `MultivariateNormal.marginal`."""
        index = positions(targets, self.target_names, self.event_size)
        return TransformedNormal(self.normal.marginal(index), self.transform.of(index))

    def condition(self, values: Mapping[Any, Any]) -> TransformedNormal:
        """The distribution of the remaining targets, given exact measurements of some.

        Args:
            values: mapping from target (name or index) to measured value, in the units of y: one
                number, or one per distribution (...).

        Raises:
            ValueError: values are outside the domain of T; or as `MultivariateNormal.condition`.

        """
        index = positions(list(values), self.target_names, self.event_size)
        measured = np.broadcast_arrays(*(finite(v, "values") for v in values.values()))
        part, y = self.transform.of(index), np.stack(measured, axis=-1)
        names = target_names_of(self.target_names, self.event_size)
        part.check(y, [names[i] for i in index])
        t = part.forward(y)
        left = np.setdiff1d(np.arange(self.event_size), index)
        posterior = self.normal.condition({int(i): t[..., j] for j, i in enumerate(index)})
        return TransformedNormal(posterior, self.transform.of(left))

    # --- density, quantiles and draws ---

    def log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density log p(y), including the Jacobian, in nats: (...).

        Args:
            y: (..., d), values of the targets.
            missing: "marginalize" treats NaN as missing; by default, NaN is an error.

        Raises:
            ValueError: values are outside the domain of T; or as `MultivariateNormal.log_prob`.

        """
        values = self._values(y, missing)
        log_prob = self.normal.log_prob(self.transform.forward(values), missing)
        return log_prob + np.nansum(self.transform.log_derivative(values), axis=-1)

    def mahalanobis(self, y: Any, missing: str = "raise") -> Array:
        """The Mahalanobis distance of T(y) from μ, in standard deviations: (...)."""
        return self.normal.mahalanobis(self.transform.forward(self._values(y, missing)), missing)

    def cdf(self, y: Any) -> Array:
        """The joint distribution function P(Y₁ ≤ y₁, …, Y_d ≤ y_d): (...)."""
        return np.asarray(self.probability(upper=y))

    def marginal_cdf(self, y: Any) -> Array:
        """The distribution function P(Yⱼ ≤ yⱼ) of each target, 0 below T's domain: (..., d)."""
        values = fitting(finite(in_order(y, self.target_names), "y"), (self.event_size,), "y")
        floor = self.transform.lowest
        inside = np.where(values > floor, values, self.median)
        self.transform.check(inside, target_names_of(self.target_names, self.event_size))
        below = self.normal.marginal_cdf(self.transform.forward(inside))
        below = np.where(self.transform.increasing, below, 1.0 - below)
        return np.where(values > floor, below, 0.0)

    def quantile(self, q: Any) -> Array:
        """Quantiles of each target: (..., d), or (n, ..., d) for n probabilities q."""
        levels = np.asarray(q, dtype=np.float64)
        low = self.normal.quantile(levels)
        high = self.normal.quantile(1.0 - levels)
        return self.transform.inverse(np.where(self.transform.increasing, low, high))

    def interval(self, level: float = 0.9, simultaneous: str | None = None) -> tuple[Array, Array]:
        """Lower and upper ends of the central interval of each target: (..., d) each.

        As `MultivariateNormal.interval`; the tails are equal, but the interval is not symmetric
        about the mean.
        """
        return ordered(self.transform, *self.normal.interval(level, simultaneous))

    def ellipsoid(self, level: float = 0.9) -> TransformedRegion:
        """The region that contains all targets at once with probability `level`."""
        return TransformedRegion(self.normal.ellipsoid(probability(level, "level")), self.transform)

    def probability(self, lower: Any = -np.inf, upper: Any = np.inf, **options: Any) -> Any:
        """The probability P(lower ≤ Y ≤ upper), all targets at once.

        Args:
            lower: lower limits in the units of y; −inf for no limit.
            upper: upper limits in the units of y; inf for no limit.
            **options: further arguments of `MultivariateNormal.probability`.

        """
        box = limits(lower, upper, self.target_names, self.event_size)
        return self.normal.probability(*self.transform.of_limits(*box), **options)

    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Draw random values: (n, ..., d), or (..., d) for n=None."""
        return self.transform.inverse(self.normal.sample(n, seed))

    # --- a sequence of distributions ---

    @property
    def event_size(self) -> int:
        """d, the number of targets."""
        return self.normal.event_size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes."""
        return self.normal.batch_shape

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """The d target names, or None."""
        return self.normal.target_names

    def _take(self, index: Any) -> TransformedNormal:
        return TransformedNormal(self.normal[index], self.transform)

    def __repr__(self) -> str:
        how = type(self.transform).__name__
        return f"TransformedNormal({self.normal!r}, {how})"

    # --- helpers ---

    def _values(self, y: Any, missing: str) -> Array:
        values, observed = observed_targets(y, missing, self.target_names)
        values = fitting(values, (self.event_size,), "y")
        if observed is not None:
            values = np.where(observed > 0, values, np.nan)
        self.transform.check(values, target_names_of(self.target_names, self.event_size))
        return values


@final
class TransformedRegion(Batch):
    """A batch of regions of all y whose T(y) lies in an ellipsoid, one region per row.

    Args:
        ellipsoid: region of T(y).
        transform: the transform T.

    """

    def __init__(self, ellipsoid: Ellipsoid, transform: TargetTransform) -> None:
        self.ellipsoid, self.transform = ellipsoid, transform

    def contains(self, y: Any) -> np.ndarray:
        """Whether y (..., d) is inside: (...), boolean."""
        normal = self.ellipsoid.normal
        values = finite(in_order(y, normal.target_names), "y")
        d = normal.event_size
        names = target_names_of(normal.target_names, d)
        self.transform.check(fitting(values, (d,), "y"), names)
        return self.ellipsoid.contains(self.transform.forward(values))

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper ends of the smallest enclosing box: (..., d) each."""
        return ordered(self.transform, *self.ellipsoid.bounds())

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes."""
        return self.ellipsoid.batch_shape

    def _take(self, index: Any) -> TransformedRegion:
        return TransformedRegion(self.ellipsoid[index], self.transform)

    def __repr__(self) -> str:
        return f"TransformedRegion({self.ellipsoid!r}, {type(self.transform).__name__})"


def ordered(transform: TargetTransform, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Map the ends of intervals of T(y) to ends in y; a decreasing T swaps them."""
    a, b = transform.inverse(lower), transform.inverse(upper)
    return np.where(transform.increasing, a, b), np.where(transform.increasing, b, a)
