"""Densities, probabilities, regions and draws of elliptical distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.checks import explained_shapes, limit, probability, whole
from keras_mvn._core.targets import in_order, limits, observed_targets
from keras_mvn._core.types import Array
from keras_mvn.distributions._elliptical import Elliptical
from keras_mvn.distributions.probability.box import box_probability
from keras_mvn.distributions.probability.simultaneous import simultaneous_multiple
from keras_mvn.distributions.regions import Ellipsoid

__all__ = ["Questions"]


class Questions(Elliptical):
    """What can be asked of elliptical distributions, by their law of the radius."""

    # --- density and draws -----------------------------------------------------------------------

    def log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density at y, in nats: (...).

        Args:
            y: (..., d), values of the targets; batch axes broadcast against those of the batch.
            missing: "marginalize" treats NaN as missing, which gives the exact marginal density of
                the observed targets. By default, NaN is an error.

        Raises:
            ValueError: the last axis is not d, batch axes do not fit, or values are not finite.

        """
        z, half_log_det, observed = self._standardize(y, missing)
        return self._law.log_density((z**2).sum(axis=-1), observed) - half_log_det

    def marginal_log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density of each target alone, in nats: (..., d); NaN where y is missing."""
        values, observed = observed_targets(y, missing, self.target_names)
        scale = self.scale_stddev
        squared = (self.residual(values) / scale) ** 2
        # Targets as a leading axis, since a law has one entry per distribution.
        density = self._law.log_density(np.moveaxis(squared, -1, 0), 1)
        found = np.moveaxis(density, 0, -1) - np.log(scale)
        return found if observed is None else np.where(observed > 0, found, np.nan)

    def entropy(self, *, return_error: bool = False, samples: int = 4096, seed: Any = 0) -> Any:
        """The entropy −E log p, in closed form, in nats: (...).

        Args:
            return_error: whether to return (entropy, error), where the error is 0.
            samples: not used, as nothing is estimated.
            seed: not used.

        """
        found = self.half_log_det + self._law.entropy(self.event_size)
        return (found, np.zeros_like(found)) if return_error else found

    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Draw random values: (n, ..., d), or (..., d) for n=None.

        Args:
            n: number of draws from each distribution.
            seed: an integer or `numpy.random.Generator`; the same seed gives the same draws.

        """
        count = 1 if n is None else whole(n, "n", "None or a number of draws", 0)
        rng = np.random.default_rng(seed)
        errors = self._gaussian.errors(
            lambda size: rng.standard_normal((count, *self.batch_shape, size))
        )
        length = np.asarray(self._law.draw(count, rng))
        draws = self._gaussian.mean + errors * (length[..., None] if length.ndim else length)
        return draws[0] if n is None else draws

    # --- probabilities ---------------------------------------------------------------------------

    def marginal_cdf(self, y: Any) -> Array:
        """The distribution function P(Yⱼ ≤ yⱼ) of each target: (..., d).

        Raises:
            ValueError: y is NaN or does not fit.
            ImportError: SciPy is not installed.

        """
        residual = self.residual(limit(in_order(y, self.target_names), "y"))
        return self._law.margin_cdf(residual / self.scale_stddev)

    def _quantile_at(self, p: Array) -> Array:
        scale = self.scale_stddev
        return self._gaussian.mean + self._law.margin_quantile(p) * scale

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
                narrow for elliptical distributions; Šidák 1967), or "exact", the narrowest multiple
                of the scales for each row's own correlations, by simulation.
            samples: number of draws per row for "exact"; the probability is then accurate to about
                √(level (1 − level) / samples).
            seed: seed of the draws, an integer or `numpy.random.Generator`.

        Raises:
            ValueError: level is not between 0 and 1, or `simultaneous` is unknown.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.9], [0.9, 1.0]])
        >>> for how in (None, "bonferroni", "sidak", "exact"):
        ...     print(how, normal.interval(0.9, how)[1].round(2))
        None [1.64 1.64]
        bonferroni [1.96 1.96]
        sidak [1.95 1.95]
        exact [1.78 1.78]

        """
        central = probability(level, "level")
        multiple = simultaneous_multiple(
            self._gaussian, self._law, central, simultaneous, samples, seed
        )
        reach = np.asarray(multiple)[..., None] * self.scale_stddev
        return self._gaussian.mean - reach, self._gaussian.mean + reach

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

        The probability of all targets being below their limits is `probability(upper=limits)`. For
        a normal, the result is exact for one target and for independent targets; two targets use
        SciPy's integrator; the rest uses quasi-Monte-Carlo integration (Genz 1992, Botev 2017),
        over the factors if a low-rank structure has many targets. For a Student's t, this is
        averaged over the variable that scales its normal.

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

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.5], [0.5, 1.0]])
        >>> normal.probability(upper=[0.0, 0.0]).round(6)  # ¼ + arcsin(½)/2π
        np.float64(0.333333)

        """
        box = limits(lower, upper, self.target_names, self.event_size)
        with explained_shapes("lower and upper", [a.shape for a in box], self.batch_shape):
            batch = np.broadcast_shapes(self.batch_shape, *(a.shape[:-1] for a in box))
        value, error = box_probability(
            self._gaussian.on_batch(batch), self._law.on_batch(batch), *box, samples, seed
        )
        return (value, error) if return_error else value

    def probability_greater(self, target: Any, other: Any) -> Array:
        """The probability that `target` is greater than `other`: (...)."""
        gap = self.difference(target, other)
        below = -gap._gaussian.mean / gap.scale_stddev
        return np.asarray(self._law.margin_cdf(-below)[..., 0])

    # --- regions ---------------------------------------------------------------------------------

    def region(self, level: float = 0.9) -> Ellipsoid:
        """The smallest region that contains all targets at once with probability `level`.

        (y − μ)ᵀ Σ⁻¹ (y − μ) ≤ c, where c is the `level` quantile of χ²_d for a normal, and d times
        that of F(d, ν) for a Student's t.

        Raises:
            ValueError: level is not between 0 and 1.

        """
        return Ellipsoid(
            self, self._law.squared_radius(probability(level, "level"), self.event_size)
        )

    def ellipsoid(self, level: float = 0.9) -> Ellipsoid:
        """The smallest region that contains all targets at once: the same as `region`."""
        return self.region(level)

    def nonconformity(self, y: Any, missing: str = "raise") -> Array:
        """The squared Mahalanobis distance of y: (...)."""
        return np.asarray(self.mahalanobis(y, missing) ** 2)

    def region_up_to(self, nonconformity: float) -> Ellipsoid:
        """The ellipsoids with this squared radius."""
        return Ellipsoid(self, nonconformity)

    def region_level(self, y: Any, missing: str = "raise") -> Array:
        """The probability of the smallest ellipsoid that contains y: (...).

        It is uniform on (0, 1) if the distributions are right. Arguments and errors are those of
        `log_prob`; the level of a row without any observed value is 0.
        """
        z, _, observed = self._standardize(y, missing)
        return self._law.level((z**2).sum(axis=-1), observed)
