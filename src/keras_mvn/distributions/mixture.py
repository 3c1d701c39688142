"""Finite mixtures of multivariate normals, as predicted by ensembles of networks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import finite, whole
from keras_mvn._core.types import Array
from keras_mvn.distributions._batch import Batch
from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = ["Mixture"]


@final
class Mixture(Batch):
    """A batch of mixtures of multivariate normals, p(y) = Σ_m w_m N(y; μ_m, Σ_m).

    Its covariance has two parts, by the law of total covariance:

        Σ* = Σ_m w_m Σ_m  +  Σ_m w_m (μ_m − μ*)(μ_m − μ*)ᵀ,    μ* = Σ_m w_m μ_m

    The first is *aleatoric* (the noise that the components expect), the second *epistemic* (the
    disagreement of the components). The average of the components' standard deviations is not the
    standard deviation of anything: it leaves out the second part.

    Only `covariance`, `aleatoric`, `epistemic` and `moments` form anything of size d × d. For
    low-rank components, density, samples and standard deviations cost as much as those of the
    components.

    Args:
        components: N(μ_m, Σ_m), batch shape (k, ...): the first batch axis is over the k
            components.
        weights: w, (k,), non-negative with sum 1; None for 1/k each.

    Raises:
        TypeError: components is not a MultivariateNormal.
        ValueError: components has no batch axis, or weights do not fit.

    Source: Lakshminarayanan, Pritzel & Blundell, "Simple and scalable predictive uncertainty
    estimation using deep ensembles", NeurIPS 2017 (one target); the covariance is textbook.

    >>> import numpy as np
    >>> components = MultivariateNormal([[0.0], [4.0]], covariance=np.ones((2, 1, 1)))
    >>> mixture = Mixture(components)
    >>> mixture.mean, mixture.aleatoric_stddev, mixture.epistemic_stddev
    (array([2.]), array([1.]), array([2.]))
    >>> mixture.stddev.round(4)
    array([2.2361])

    """

    def __init__(self, components: MultivariateNormal, weights: Any = None) -> None:
        if not isinstance(components, MultivariateNormal):
            raise TypeError(
                "Mixture: components must be one MultivariateNormal whose first batch axis is over "
                f"the components; received {type(components).__name__}."
            )
        if not components.batch_shape or len(components) == 0:
            raise ValueError(
                "Mixture: components must have a first batch axis, over at least one component; "
                f"received batch_shape={components.batch_shape}."
            )
        self._components = components
        self._weights = _checked_weights(weights, len(components))
        self._mean = self._average(components.mean)

    @property
    def components(self) -> MultivariateNormal:
        """The components N(μ_m, Σ_m), with batch shape (k, ...)."""
        return self._components

    @property
    def weights(self) -> Array:
        """The weights w: (k,)."""
        return self._weights

    def _average(self, values: Array) -> Array:
        """The weighted average Σ_m w_m values_m: (k, ...) → (...)."""
        return np.tensordot(self._weights, values, axes=1)

    # --- moments ---------------------------------------------------------------------------------

    @property
    def mean(self) -> Array:
        """The mean μ*, in the units of y: (..., d)."""
        return self._mean

    @property
    def aleatoric(self) -> Array:
        """The aleatoric covariance E[Σ], the noise, in squared units of y: (..., d, d)."""
        terms = (w * normal.covariance for w, normal in self._weighted())  # one component at a time
        return np.asarray(sum(terms))

    @property
    def epistemic(self) -> Array:
        """The epistemic covariance Cov[μ], the disagreement of the components: (..., d, d).

        The divisor is k, not k − 1. The rank is at most k − 1: with few components, it shows how
        much they disagree, but little about the directions.
        """
        spread = self._spread()
        return np.einsum("m...i,m...j->...ij", spread, spread)

    @property
    def covariance(self) -> Array:
        """The covariance Σ* = aleatoric + epistemic, in squared units of y: (..., d, d)."""
        return self.aleatoric + self.epistemic

    @property
    def variance(self) -> Array:
        """The variances, in squared units of y: (..., d)."""
        return self._aleatoric_variance() + self._epistemic_variance()

    @property
    def stddev(self) -> Array:
        """Standard deviations, in the units of y: (..., d)."""
        return np.sqrt(self.variance)

    @property
    def aleatoric_stddev(self) -> Array:
        """Square roots of the diagonal of `aleatoric`: (..., d)."""
        return np.sqrt(self._aleatoric_variance())

    @property
    def epistemic_stddev(self) -> Array:
        """Square roots of the diagonal of `epistemic`: (..., d)."""
        return np.sqrt(self._epistemic_variance())

    def _aleatoric_variance(self) -> Array:
        return self._average(self._components.variance)

    def _epistemic_variance(self) -> Array:
        return self._average((self._components.mean - self._mean) ** 2)

    def _spread(self) -> Array:
        """The weighted deviations √w_m (μ_m − μ*): (k, ..., d)."""
        root = np.sqrt(self._weights).reshape(-1, *(1 for _ in self._mean.shape))
        return root * (self._components.mean - self._mean)

    def moments(self) -> MultivariateNormal:
        """The normal with the mean and covariance of the mixture.

        It is the normal closest to the mixture in KL(mixture ‖ normal). The factor of Σ* comes from
        a QR factorization of the stacked factors √w_m L_mᵀ and √w_m (μ_m − μ*)ᵀ: Σ* is not formed,
        so that only the square root of its condition number is lost in accuracy.
        """
        root = np.moveaxis(self._spread(), 0, -2)
        for w, normal in self._weighted():  # one at a time: a stack of all would be large
            rows = np.sqrt(w) * np.swapaxes(normal.scale_tril, -1, -2)
            root = np.asarray(np.linalg.qr(np.concatenate([root, rows], axis=-2), mode="r"))
        sign = np.where(np.diagonal(root, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
        factor = np.swapaxes(sign[..., None] * root, -1, -2)
        return MultivariateNormal(self._mean, scale_tril=factor, target_names=self.target_names)

    # --- density and samples ---------------------------------------------------------------------

    def log_prob(self, y: Any, missing: str = "raise") -> Array:
        """The log-density log Σ_m w_m N(y; μ_m, Σ_m), in nats: (...).

        Args:
            y: (..., d), values of the targets; batch axes broadcast against those of the batch.
            missing: "marginalize" treats NaN as missing, which gives the exact marginal density of
                the observed targets. By default, NaN is an error.

        Raises:
            ValueError: the last axis is not d, batch axes do not fit, or values are not finite.

        """
        terms = [np.log(w) + normal.log_prob(y, missing) for w, normal in self._weighted()]
        return np.asarray(np.logaddexp.reduce(terms, axis=0))

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
        picked = generator.choice(len(self._weights), size=(count, rows), p=self._weights)
        draws = np.empty((count, rows, self.event_size))
        for m, normal in enumerate(self._components):
            mine = picked == m
            some = np.flatnonzero(mine.any(axis=0))
            if not len(some):
                continue
            # For each row, as many draws as the row that picked this component most often needs.
            which = np.cumsum(mine[:, some], axis=0) - 1
            drawn = normal.flatten()[some].sample(int(which.max()) + 1, generator)
            draw, at = np.nonzero(mine[:, some])
            draws[draw, some[at]] = drawn[which[draw, at], at]
        shaped = draws.reshape(count, *self.batch_shape, self.event_size)
        return shaped[0] if n is None else shaped

    def marginal(self, targets: Any) -> Self:
        """The marginal mixture of some of the targets.

        Args:
            targets: one or several names or indices, in the desired order, or a slice.

        Raises:
            ValueError: a target is unknown or repeated, or there is none.

        """
        return type(self)(self._components.marginal(targets), self._weights)

    def _weighted(self) -> Iterator[tuple[float, MultivariateNormal]]:
        """Yield the weight and distributions of each component with a positive weight."""
        for w, normal in zip(self._weights, self._components, strict=True):
            if w > 0:
                yield w, normal

    # --- a sequence of mixtures ------------------------------------------------------------------

    @property
    def event_size(self) -> int:
        """d, the number of targets."""
        return self._components.event_size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes, without that of the components; () for a single mixture."""
        return self._components.batch_shape[1:]

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """The d target names, or None."""
        return self._components.target_names

    def _take(self, index: Any) -> Self:
        positions = np.arange(int(np.prod(self.batch_shape))).reshape(self.batch_shape)[index]
        rows = np.unravel_index(positions, self.batch_shape)
        return type(self)(self._components[(slice(None), *rows)], self._weights)

    def __repr__(self) -> str:
        targets = "" if self.target_names is None else f", targets={list(self.target_names)}"
        return (
            f"Mixture(components={len(self._weights)}, batch_shape={self.batch_shape}, "
            f"event_size={self.event_size}{targets})"
        )


def _checked_weights(weights: Any, k: int) -> Array:
    if weights is None:
        return np.full(k, 1.0 / k)
    checked = finite(weights, "weights")
    if checked.shape != (k,) or (checked < 0).any() or abs(checked.sum() - 1.0) > 1e-6:
        raise ValueError(
            f"weights={weights!r} must be {k} numbers ≥ 0 with sum 1, one per component; "
            f"received shape {checked.shape} with sum {checked.sum():.6g}."
        )
    return checked / checked.sum()
