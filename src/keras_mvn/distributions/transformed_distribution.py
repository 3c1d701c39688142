"""Likelihoods, moments and regions of targets whose monotone transforms have a known distribution.

t = T(y) for each target, and t is, for example, N(μ, Σ). With the derivative T' and the density q
of t,

    log p(y) = log q(T(y)) + Σⱼ log |Tⱼ'(yⱼ)|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self, final

import numpy as np

from keras_mvn._core.checks import finite, fitting, limit, probability
from keras_mvn._core.targets import in_order, limits, observed_targets, positions, target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions import _storage
from keras_mvn.distributions._arguments import Measurements
from keras_mvn.distributions._batch import Batch
from keras_mvn.distributions._normal_law import NORMAL
from keras_mvn.distributions._transforms import Rescaled, TargetTransform
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = ["TransformedDistribution", "TransformedRegion", "ordered"]

_SAMPLES = 4096
"""Number of draws per distribution of what is estimated."""


@final
class TransformedDistribution(Distribution):
    """A batch of distributions of y, of which T(y) has a known distribution, T monotone.

    Densities, quantiles, intervals, probabilities of boxes and conditioning on exact measurements
    are those of T(y), exactly. A sum of targets has no closed form: draw samples.

    Args:
        base: distribution of T(y).
        transform: the transform T, of each target alone.

    """

    format: ClassVar[str] = "keras_mvn.TransformedDistribution"

    def __init__(self, base: Distribution, transform: TargetTransform) -> None:
        self.base, self.transform = base, transform

    # --- moments, in the units of y ---

    @property
    def mean(self) -> Array:
        """The mean E y, which is not T⁻¹(E t): (..., d).

        Raises:
            ValueError: there is none, because T(y) has tails.

        """
        return self._moments(dense=False)[0]

    @property
    def center(self) -> Array:
        """The median: (..., d)."""
        return self.median

    @property
    def median(self) -> Array:
        """The median of each target, T⁻¹ of the median of t: (..., d)."""
        return self.transform.inverse(self.base.median)

    @property
    def variance(self) -> Array:
        """The variances, in squared units of y: (..., d)."""
        return self._moments(dense=False)[1]

    @property
    def covariance(self) -> Array:
        """The covariance, in squared units of y: (..., d, d)."""
        return self._moments(dense=True)[1]

    def _moments(self, dense: bool) -> tuple[Array, Array]:
        """Mean and variance, or covariance, by those of the normals of which t is a mixture."""
        found = [(weight, *self.transform.moments(n, dense)) for weight, n in self._normals()]
        if len(found) == 1:
            return found[0][1:]
        mean = np.asarray(sum(w[..., None] * m for w, m, _ in found))
        second: Any = 0.0
        for w, m, s in found:
            gap = m - mean
            outer = gap[..., :, None] * gap[..., None, :] if dense else gap**2
            second = second + w.reshape(*w.shape, *[1] * (2 if dense else 1)) * (s + outer)
        return mean, np.asarray(second)

    def _normals(self) -> list[tuple[Array, MultivariateNormal]]:
        """The normals of which the base is a mixture, and their weights (...)."""
        parts = self.base.parts()
        if parts is None:
            raise ValueError(
                "The moments of a transform of transformed targets are not known. Use `median`, "
                "`quantile` or `sample`."
            )
        found = []
        for part in parts:
            power = 2.0 * self.transform.growth
            if part.law is not NORMAL and math.isinf(power):
                raise ValueError(
                    "These targets have no mean: they grow exponentially with T(y), which has the "
                    "tails of a Student's t. `median`, `quantile` and `interval` exist."
                )
            scales, weights = part.law.nodes(power if part.law is not NORMAL else 0.0)
            for k in range(scales.shape[-1]):
                factor = np.broadcast_to(np.sqrt(scales[..., k]), self.batch_shape)
                node = part.gaussian.rescale(factor[..., None])
                normal = MultivariateNormal._of(node, NORMAL, self.target_names)
                found.append((np.exp(part.log_weight) * weights[..., k], normal))
        return found

    def moments(self) -> MultivariateNormal:
        """The normal with the same mean and covariance, in the units of y."""
        mean, covariance = self._moments(dense=True)
        return MultivariateNormal(mean, covariance=covariance, target_names=self.target_names)

    # --- parts and functions of the targets ---

    def marginal(self, targets: Any) -> Self:
        """The marginal distribution of some of the targets, as `MultivariateNormal.marginal`."""
        index = positions(targets, self.target_names, self.event_size)
        return type(self)(self.base.marginal(index), self.transform.of(index))

    def _conditioned(self, measured: Measurements) -> tuple[Distribution, Array]:
        if not measured.exact.all():
            raise ValueError(
                "Targets with a transform can be conditioned on exact measurements only: a normal "
                "error of y is no normal error of T(y)."
            )
        part = self.transform.of(measured.index)
        names = target_names_of(self.target_names, self.event_size)
        part.check(measured.values, [names[i] for i in measured.index])
        seen = Measurements(
            measured.index,
            part.forward(measured.values),
            measured.variance,
            measured.exact,
            measured.left,
        )
        posterior, evidence = self.base._conditioned(seen)
        evidence = evidence + part.log_derivative(measured.values).sum(axis=-1)
        return type(self)(posterior, self.transform.of(measured.left)), evidence

    def affine(
        self, matrix: Any, offset: Any = 0.0, target_names: Sequence[str] | None = None
    ) -> Self:
        """Not possible: sums of transformed targets have no closed form.

        Raises:
            ValueError: always; it says what to do.

        """
        raise ValueError(
            "Linear functions of targets with a transform have no closed form. Draw from the "
            "distribution, and take the function of the draws: `sample(10_000) @ weights`."
        )

    def _scaled(self, factors: Array, offset: Array) -> Self:
        d = self.event_size
        if factors.shape not in ((), (d,)) or offset.shape not in ((), (d,)):
            raise ValueError(
                "Targets with a transform can be shifted and multiplied by one number, or by one "
                f"per target ({d}); received shapes {factors.shape} and {offset.shape}."
            )
        moved = Rescaled(self.transform, np.full(d, factors), np.full(d, offset))
        return type(self)(self.base, moved)

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
        log_prob = self.base.log_prob(self.transform.forward(values), missing)
        return log_prob + np.nansum(self.transform.log_derivative(values), axis=-1)

    def marginal_log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density of each target alone, in nats: (..., d); NaN where y is missing."""
        values = self._values(y, missing)
        found = self.base.marginal_log_prob(self.transform.forward(values), missing)
        return found + self.transform.log_derivative(values)

    def mahalanobis(self, y: Any, missing: str = "raise") -> Array:
        """The Mahalanobis distance of T(y) from the center of t, in scales: (...).

        Raises:
            TypeError: T(y) is not elliptical.

        """
        base = self.base.require_elliptical("mahalanobis")
        return np.asarray(
            base.mahalanobis(self.transform.forward(self._values(y, missing)), missing)
        )

    def entropy(self, *, return_error: bool = False, samples: int = 4096, seed: Any = 0) -> Any:
        """The entropy −E log p, in nats: that of T(y), minus the mean of Σ log T', by draws: (...).

        Args:
            return_error: whether to return (entropy, error), where the error is about two standard
                errors of the estimate.
            samples: number of draws per distribution.
            seed: seed of the draws.

        """
        value, error = self.base.entropy(return_error=True, samples=samples, seed=seed)
        slopes = self.transform.log_derivative(self.sample(samples, seed)).sum(axis=-1)
        value = value - slopes.mean(axis=0)
        if not return_error:
            return value
        return value, error + 2.0 * slopes.std(axis=0, ddof=1) / math.sqrt(samples)

    def marginal_cdf(self, y: Any) -> Array:
        """The distribution function P(Yⱼ ≤ yⱼ) of each target, 0 below T's domain: (..., d)."""
        values = fitting(limit(in_order(y, self.target_names), "y"), (self.event_size,), "y")
        floor = np.broadcast_to(self.transform.lowest, values.shape)
        inside = np.isfinite(values) & (values > floor)
        filled = np.where(inside, values, self.median)
        self.transform.check(filled, target_names_of(self.target_names, self.event_size))
        below = self.base.marginal_cdf(self.transform.forward(filled))
        below = np.where(self.transform.increasing, below, 1.0 - below)
        return np.where(inside, below, np.where(values > floor, 1.0, 0.0))

    def _quantile_at(self, p: Array) -> Array:
        low, high = self.base._quantile_at(p), self.base._quantile_at(1.0 - p)
        return self.transform.inverse(np.where(self.transform.increasing, low, high))

    def interval(
        self,
        level: float = 0.9,
        simultaneous: str | None = None,
        samples: int = 10_000,
        seed: Any = 0,
    ) -> tuple[Array, Array]:
        """Lower and upper ends of the central interval of each target: (..., d) each.

        As `MultivariateNormal.interval`; the tails are equal, but the interval is not symmetric
        about the mean.
        """
        return ordered(self.transform, *self.base.interval(level, simultaneous, samples, seed))

    def probability(
        self,
        lower: Any = -np.inf,
        upper: Any = np.inf,
        *,
        return_error: bool = False,
        samples: int = 4096,
        seed: int = 0,
    ) -> Any:
        """The probability P(lower ≤ Y ≤ upper), all targets at once, as that of T(y).

        Args:
            lower: lower limits in the units of y; −inf for no limit.
            upper: upper limits in the units of y; inf for no limit.
            return_error: as in `MultivariateNormal.probability`.
            samples: as in `MultivariateNormal.probability`.
            seed: as in `MultivariateNormal.probability`.

        """
        box = limits(lower, upper, self.target_names, self.event_size)
        return self.base.probability(
            *self.transform.of_limits(*box), return_error=return_error, samples=samples, seed=seed
        )

    def probability_greater(self, target: Any, other: Any) -> Array:
        """The probability that `target` is greater than `other`, estimated by draws: (...)."""
        index = positions([target, other], self.target_names, self.event_size)
        draws = self.marginal(index).sample(_SAMPLES, 0)
        return np.asarray((draws[..., 0] > draws[..., 1]).mean(axis=0))

    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Draw random values: (n, ..., d), or (..., d) for n=None."""
        return self.transform.inverse(self.base.sample(n, seed))

    # --- regions ---

    def region(self, level: float = 0.9) -> TransformedRegion:
        """The region that contains all targets at once with probability `level`: T⁻¹ of t's."""
        return TransformedRegion(self.base.region(probability(level, "level")), self.transform)

    ellipsoid = region

    def region_level(self, y: Any, missing: str = "raise") -> Array:
        """The probability of the smallest `region` that contains y: (...)."""
        return self.base.region_level(self.transform.forward(self._values(y, missing)), missing)

    def nonconformity(self, y: Any, missing: str = "raise") -> Array:
        """That of T(y): (...)."""
        return self.base.nonconformity(self.transform.forward(self._values(y, missing)), missing)

    def region_up_to(self, nonconformity: float) -> TransformedRegion:
        """The regions T⁻¹ of those of T(y)."""
        return TransformedRegion(self.base.region_up_to(nonconformity), self.transform)

    def require_elliptical(self, who: str) -> Any:
        """Not possible, but for T(y).

        Raises:
            TypeError: always; it says what to pass.

        """
        raise TypeError(
            f"{who} takes elliptical distributions, and transformed targets are not. T(y) may be: "
            "pass `.base`, the distribution of T(y), and `.transform.forward(y)` in place of y."
        )

    def parts(self) -> None:
        """None: transformed targets are no mixture of elliptical ones."""

    # --- a sequence of distributions ---

    @property
    def event_size(self) -> int:
        """d, the number of targets."""
        return self.base.event_size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes."""
        return self.base.batch_shape

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """The d target names, or None."""
        return self.base.target_names

    def with_names(self, target_names: Sequence[str] | None) -> Self:
        """The same distributions, with different target names."""
        return type(self)(self.base.with_names(target_names), self.transform)

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Self:
        """The same distributions, repeated along new batch axes, as `numpy.broadcast_to`."""
        return type(self)(self.base.broadcast_to(batch_shape), self.transform)

    def flatten(self) -> Self:
        """The same distributions with one batch axis, in C order; (1,) for a single one."""
        return type(self)(self.base.flatten(), self.transform)

    def _take(self, index: Any) -> Self:
        return type(self)(self.base[index], self.transform)

    def _joined(self, batches: Sequence[Self]) -> Self:
        if any(one.transform is not self.transform for one in batches):
            raise ValueError("concatenate: the distributions have different transforms.")
        return type(self)(type(self.base).concatenate([b.base for b in batches]), self.transform)

    def _state(self) -> _storage.State:
        raise ValueError(
            "Distributions of transformed targets are not saved, since a transform may be any "
            "code. Save `.base`, the distributions of T(y), and keep T with the estimator."
        )

    @classmethod
    def _from_state(cls, state: _storage.State) -> Self:
        raise ValueError("Distributions of transformed targets are not saved.")

    def __repr__(self) -> str:
        how = type(self.transform).__name__
        return f"TransformedDistribution({self.base!r}, {how})"

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
    """A batch of regions of all y whose T(y) lies in a region, one region per row.

    Args:
        region: region of T(y).
        transform: the transform T.

    """

    def __init__(self, region: Any, transform: TargetTransform) -> None:
        self.region, self.transform = region, transform

    def contains(self, y: Any) -> np.ndarray:
        """Whether y (..., d) is inside: (...), boolean."""
        base = self.region.distribution
        values = finite(in_order(y, base.target_names), "y")
        names = target_names_of(base.target_names, base.event_size)
        self.transform.check(fitting(values, (base.event_size,), "y"), names)
        return np.asarray(self.region.contains(self.transform.forward(values)))

    def outline(self) -> list[Array]:
        """The border of a single region of two targets, as closed curves: (2, points) each."""
        return [self.transform.inverse(curve.T).T for curve in self.region.outline()]

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper ends of the smallest box around an ellipsoid's region: (..., d) each."""
        return ordered(self.transform, *self.region.bounds())

    @property
    def log_volume(self) -> Array:
        """The log-volume, in log units of y, estimated by draws: (...)."""
        base = self.region.distribution
        t = base.sample(_SAMPLES, 0)
        slopes = self.transform.log_derivative(self.transform.inverse(t))
        log_density = base.log_prob(t) + slopes.sum(axis=-1)
        terms = np.where(self.region.contains(t), -log_density, -np.inf)
        return np.asarray(np.logaddexp.reduce(terms, axis=0) - math.log(_SAMPLES))

    @property
    def volume(self) -> Array:
        """The volume exp(log_volume): (...)."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self.log_volume)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes."""
        return tuple(self.region.batch_shape)

    def _take(self, index: Any) -> TransformedRegion:
        return TransformedRegion(self.region[index], self.transform)

    def __repr__(self) -> str:
        return f"TransformedRegion({self.region!r}, {type(self.transform).__name__})"


def ordered(transform: TargetTransform, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Map the ends of intervals of T(y) to ends in y; a decreasing T swaps them."""
    a, b = transform.inverse(lower), transform.inverse(upper)
    return np.where(transform.increasing, a, b), np.where(transform.increasing, b, a)
