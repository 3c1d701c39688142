"""Finite mixtures of distributions, as predicted by ensembles of networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Array
from keras_mvn.distributions import _storage
from keras_mvn.distributions._arguments import Measurements
from keras_mvn.distributions._components import check_components, checked_log_weights
from keras_mvn.distributions._highest_density import log_densities
from keras_mvn.distributions._mixture_moments import MixtureMoments
from keras_mvn.distributions._parts import Part
from keras_mvn.distributions.base import Distribution

__all__ = ["Mixture"]


@final
class Mixture(MixtureMoments):
    """A batch of mixtures of distributions, p(y) = Σ_m w_m p_m(y).

    Its covariance has two parts, by the law of total covariance:

        Σ* = Σ_m w_m Σ_m  +  Σ_m w_m (μ_m − μ*)(μ_m − μ*)ᵀ,    μ* = Σ_m w_m μ_m

    The first is *aleatoric* (the noise that the components expect), the second *epistemic* (the
    disagreement of the components). The average of the components' standard deviations is not the
    standard deviation of anything: it leaves out the second part.

    Marginals and linear functions are mixtures of those of the components. Given measurements, the
    components are conditioned, and their weights are multiplied by how probable each of them made
    the measured values (Bayes). Density, distribution function, quantiles and moments are exact;
    `entropy` and `region` are estimated by draws.

    Only `covariance`, `aleatoric`, `epistemic` and `moments` form anything of size d × d. For
    low-rank components, density, samples and standard deviations cost as much as those of the
    components.

    Args:
        components: the distributions p_m: a sequence of k batches of equal batch shape, which may
            differ in class and structure, or one batch of batch shape (k, ...), whose first axis is
            over the components. Mixtures among them are replaced by their components.
        weights: w, (k,), or (k, ...) if they differ by row; non-negative with sum 1. None for 1/k
            each.

    Raises:
        TypeError: components are not distributions.
        ValueError: components has no batch axis, differ in targets or batch shape, or weights do
            not fit.

    Source: Lakshminarayanan, Pritzel & Blundell, "Simple and scalable predictive uncertainty
    estimation using deep ensembles", NeurIPS 2017 (one target); the covariance is textbook.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> components = MultivariateNormal([[0.0], [4.0]], covariance=np.ones((2, 1, 1)))
    >>> mixture = Mixture(components)
    >>> mixture.mean, mixture.aleatoric_stddev, mixture.epistemic_stddev
    (array([2.]), array([1.]), array([2.]))
    >>> mixture.stddev.round(4), mixture.quantile(0.5)
    (array([2.2361]), array([2.]))

    """

    format: ClassVar[str] = "keras_mvn.Mixture"

    def __init__(
        self, components: Distribution | Sequence[Distribution], weights: Any = None
    ) -> None:
        given = components if isinstance(components, Distribution) else list(components)
        check_components(given)
        log_weights = checked_log_weights(weights, len(given), given[0].batch_shape)
        self._set(given, log_weights)

    @classmethod
    def _of(cls, components: Distribution | Sequence[Distribution], log_weights: Array) -> Self:
        created = cls.__new__(cls)
        created._set(components, log_weights)
        return created

    def _set(self, components: Distribution | Sequence[Distribution], log_weights: Array) -> None:
        parts = list(components)
        self._stack = components if isinstance(components, Distribution) else None
        if any(isinstance(part, Mixture) for part in parts):
            parts, log_weights = _flattened(parts, log_weights)
            self._stack = None
        self._components, self._log_weights = tuple(parts), log_weights

    @property
    def components(self) -> Any:
        """The components, as they were given: one batch of shape (k, ...), or k batches."""
        return self._components if self._stack is None else self._stack

    @property
    def weights(self) -> Array:
        """The weights w: (k,), or (k, ...) if they differ by row."""
        return np.exp(self._log_weights)

    # --- density and draws -----------------------------------------------------------------------

    def log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density log Σ_m w_m p_m(y), in nats: (...).

        Args:
            y: (..., d), values of the targets; batch axes broadcast against those of the batch.
            missing: "marginalize" treats NaN as missing, which gives the exact marginal density of
                the observed targets. By default, NaN is an error.

        Raises:
            ValueError: the last axis is not d, batch axes do not fit, or values are not finite.

        """
        terms = [weight + one.log_prob(y, missing) for weight, one in self._weighted()]
        return np.asarray(np.logaddexp.reduce(terms, axis=0))

    def marginal_log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density of each target alone, in nats: (..., d); NaN where y is missing."""
        terms = [
            weight[..., None] + one.marginal_log_prob(y, missing)
            for weight, one in self._weighted()
        ]
        return np.asarray(np.logaddexp.reduce(terms, axis=0))

    def entropy(self, *, return_error: bool = False, samples: int = 4096, seed: Any = 0) -> Any:
        """The entropy −E log p, in nats, estimated by draws: (...).

        Args:
            return_error: whether to return (entropy, error), where the error is about two standard
                errors of the estimate.
            samples: number of draws per distribution.
            seed: seed of the draws.

        """
        densities = -log_densities(self, samples, seed)
        value = densities.mean(axis=0)
        if not return_error:
            return value
        return value, 2.0 * densities.std(axis=0, ddof=1) / math.sqrt(samples)

    def sample(self, n: int | None = None, seed: Any = None) -> Array:
        """Draw random values: (n, ..., d), or (..., d) for n=None.

        Each draw for each row picks its own component.

        Args:
            n: number of draws from each mixture.
            seed: an integer or `numpy.random.Generator`; the same seed gives the same draws.

        """
        count = 1 if n is None else whole(n, "n", "None or a number of draws", 0)
        generator = np.random.default_rng(seed)
        rows = math.prod(self.batch_shape)
        below = np.cumsum(np.exp(self._row_log_weights()).reshape(-1, rows), axis=0)[:-1]
        picked = (generator.random((count, 1, rows)) > below).sum(axis=1)
        draws = np.empty((count, rows, self.event_size))
        for m, one in enumerate(self._components):
            mine = picked == m
            some = np.flatnonzero(mine.any(axis=0))
            if not len(some):
                continue
            # For each row, as many draws as the row that picked this component most often needs.
            which = np.cumsum(mine[:, some], axis=0) - 1
            drawn = one.flatten()[some].sample(int(which.max()) + 1, generator)
            draw, at = np.nonzero(mine[:, some])
            draws[draw, some[at]] = drawn[which[draw, at], at]
        shaped = draws.reshape(count, *self.batch_shape, self.event_size)
        return shaped[0] if n is None else shaped

    # --- parts and functions of the targets ------------------------------------------------------

    def marginal(self, targets: Any) -> Self:
        """The marginal mixture of some of the targets.

        Args:
            targets: one or several names or indices, in the desired order, or a slice.

        Raises:
            ValueError: a target is unknown or repeated, or there is none.

        """
        return self._with(lambda one: one.marginal(targets))

    def _conditioned(self, measured: Measurements) -> tuple[Distribution, Array]:
        found = [one._conditioned(measured) for one in self._components]
        batch = np.broadcast_shapes(self.batch_shape, *(evidence.shape for _, evidence in found))
        evidence = np.stack([np.broadcast_to(evidence, batch) for _, evidence in found])
        joint = self.broadcast_to(batch)._row_log_weights() + evidence
        total = np.logaddexp.reduce(joint, axis=0)
        posterior = [one.broadcast_to(batch) for one, _ in found]
        return type(self)._of(posterior, joint - total), total

    def affine(
        self, matrix: Any, offset: Any = 0.0, target_names: Sequence[str] | None = None
    ) -> Self:
        """The joint mixture of m linear functions A y + b.

        Args:
            matrix: A, (m, d) or (..., m, d), or (d,) for one function, with linearly independent
                rows.
            offset: b, one number, (m,) or (..., m).
            target_names: m names of the functions.

        Raises:
            ValueError: shapes do not fit, values are not finite, or rows are dependent.

        """
        return self._each(lambda one: one.affine(matrix, offset, target_names))

    def _scaled(self, factors: Array, offset: Array) -> Self:
        return self._each(lambda one: one._scaled(factors, offset))

    def rescale(self, factor: Any) -> Self:
        """The mixture with errors of every component rescaled; means stay where they are."""
        return self._each(lambda one: one.rescale(factor))

    def widened(self, spread: Array) -> Self:
        """The mixture with Σ s sᵀ added to the covariance of every component.

        Args:
            spread: (m, ..., d), the vectors s.

        """
        return self._each(lambda one: one.widened(spread))

    # --- probabilities and regions ---------------------------------------------------------------

    def marginal_cdf(self, y: Any) -> Array:
        """The distribution function P(Yⱼ ≤ yⱼ) of each target: (..., d).

        Raises:
            ValueError: y is NaN or does not fit.
            ImportError: SciPy is not installed.

        """
        return self._average(lambda one: one.marginal_cdf(y))

    def _quantile_at(self, p: Array) -> Array:
        """Solve F(x) = p by Newton's method, between the components' smallest and largest."""
        ends = [one._quantile_at(p) for _, one in self._weighted()]
        low, high = np.min(ends, axis=0), np.max(ends, axis=0)
        x = 0.5 * (low + high)
        for _ in range(200):
            excess = self.marginal_cdf(x) - p
            low, high = np.where(excess < 0, x, low), np.where(excess < 0, high, x)
            with np.errstate(all="ignore"):
                after = x - excess / np.exp(self.marginal_log_prob(x))
            after = np.where((after > low) & (after < high), after, 0.5 * (low + high))
            still = np.abs(after - x) > 4e-16 * np.maximum(np.abs(x), high - low)
            x = after
            if not still.any():
                break
        return x

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

        The average over the components; arguments and errors are those of
        `MultivariateNormal.probability`.
        """
        value: Any = 0.0
        square: Any = 0.0
        for m, (log_weight, one) in enumerate(self._weighted()):
            part, error = one.probability(
                lower, upper, return_error=True, samples=samples, seed=seed + m
            )
            value = value + np.exp(log_weight) * part
            square = square + (np.exp(log_weight) * error) ** 2
        return (value, np.sqrt(square)) if return_error else value

    def parts(self) -> tuple[Part, ...] | None:
        """The elliptical components, or None if a component has none."""
        found = []
        for log_weight, one in self._weighted():
            parts = one.parts()
            if parts is None:
                return None
            found += [Part(log_weight + p.log_weight, p.gaussian, p.law) for p in parts]
        return tuple(found)

    # --- a sequence of mixtures ------------------------------------------------------------------

    @property
    def event_size(self) -> int:
        """d, the number of targets."""
        return self._components[0].event_size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes, without that of the components; () for a single mixture."""
        return self._components[0].batch_shape

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """The d target names, or None."""
        return self._components[0].target_names

    def with_names(self, target_names: Sequence[str] | None) -> Self:
        """The same mixtures, with different target names."""
        return self._with(lambda one: one.with_names(target_names))

    def _with(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function that leaves batch axes alone to the components."""
        if self._stack is not None:
            return self._of(function(self._stack), self._log_weights)
        return self._each(function)

    def _each(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function that may add batch axes to each component."""
        changed = [function(one) for one in self._components]
        log_weights = self._log_weights
        if log_weights.ndim > 1:
            batch = changed[0].batch_shape
            log_weights = np.stack([np.broadcast_to(row, batch) for row in log_weights])
        return self._of(changed, log_weights)

    def broadcast_to(self, batch_shape: tuple[int, ...]) -> Self:
        """The same mixtures, repeated along new batch axes, as `numpy.broadcast_to`."""
        return self._each(lambda one: one.broadcast_to(batch_shape))

    def flatten(self) -> Self:
        """The same mixtures with one batch axis, in C order; (1,) for a single mixture."""
        k, log_weights = len(self._components), self._log_weights
        flat = log_weights if log_weights.ndim == 1 else log_weights.reshape(k, -1)
        return self._of([one.flatten() for one in self._components], flat)

    def _take(self, index: Any) -> Self:
        positions = np.arange(math.prod(self.batch_shape)).reshape(self.batch_shape)[index]
        rows = np.unravel_index(positions, self.batch_shape)
        log_weights = self._log_weights
        if log_weights.ndim > 1:
            log_weights = log_weights[(slice(None), *rows)]
        if self._stack is not None:
            return self._of(self._stack[(slice(None), *rows)], log_weights)
        return self._of([one[rows] for one in self._components], log_weights)

    def _joined(self, batches: Sequence[Self]) -> Self:
        most = max(batches, key=lambda mixture: len(mixture._components))
        batches = [mixture._with_components_like(most) for mixture in batches]
        kinds = {tuple(type(one) for one in mixture._components) for mixture in batches}
        if len(kinds) > 1:
            raise ValueError("concatenate: the mixtures have different components.")
        joined = [
            type(first).concatenate([mixture._components[m] for mixture in batches])
            for m, first in enumerate(most._components)
        ]
        weights = [mixture._log_weights for mixture in batches]
        if all(w.ndim == 1 and np.array_equal(w, weights[0]) for w in weights):
            return self._of(joined, weights[0])
        rows = np.concatenate([mixture._row_log_weights() for mixture in batches], axis=1)
        return self._of(joined, rows)

    def _with_components_like(self, other: Self) -> Self:
        """The same mixtures with as many components as others, the further ones of weight 0."""
        missing = len(other._components) - len(self._components)
        if not missing:
            return self
        components = [*self._components, *[self._components[0]] * missing]
        own = self._row_log_weights()
        return self._of(
            components,
            np.concatenate([own, np.full_like(own[:1], -np.inf).repeat(missing, axis=0)]),
        )

    def _state(self) -> _storage.State:
        states = [one._state() for one in self._components]
        arrays = {f"{m}.{name}": a for m, s in enumerate(states) for name, a in s.arrays.items()}
        header = {
            "format": self.format,
            "version": _storage.VERSION,
            "target_names": self.target_names,
            "members": [state.header for state in states],
        }
        return _storage.State(header, {"log_weights": self._log_weights, **arrays})

    @classmethod
    def _from_state(cls, state: _storage.State) -> Self:
        members = [state.member(m) for m in range(len(state.header["members"]))]
        components: list[Any] = [
            cls._formats[one.header["format"]]._from_state(one) for one in members
        ]
        return cls._of(components, state.arrays["log_weights"])

    def __repr__(self) -> str:
        targets = "" if self.target_names is None else f", targets={list(self.target_names)}"
        return (
            f"Mixture(components={len(self._components)}, batch_shape={self.batch_shape}, "
            f"event_size={self.event_size}{targets})"
        )


def _flattened(
    components: list[Distribution], log_weights: Array
) -> tuple[list[Distribution], Array]:
    """Replace mixtures by their components."""
    batch = components[0].batch_shape
    parts: list[Distribution] = []
    rows: list[Array] = []
    for log_weight, one in zip(log_weights, components, strict=True):
        if isinstance(one, Mixture):
            parts += one._components
            rows += list(
                log_weight
                + one._log_weights.reshape(
                    len(one._components), *(one._log_weights.shape[1:] or [1] * len(batch))
                )
            )
        else:
            parts.append(one)
            rows.append(log_weight)
    shapes = {np.shape(row) for row in rows}
    if shapes <= {(), (1,) * len(batch)}:
        return parts, np.array([np.reshape(row, ()) for row in rows])
    return parts, np.stack([np.broadcast_to(row, batch) for row in rows])
