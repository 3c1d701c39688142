"""Moments of mixtures: what the components expect, and how much they disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions._density_regions import DensityRegions
from keras_mvn.distributions.base import Distribution
from keras_mvn.distributions.multivariate_normal import MultivariateNormal

__all__ = ["MixtureMoments"]


class MixtureMoments(DensityRegions):
    """Components and their weights, and moments by the law of total covariance."""

    _components: tuple[Distribution, ...]
    _log_weights: Array
    """(k,), or (k, ...) if they differ by row."""

    def _average(self, values: Callable[[Distribution], Array], event_axes: int = 1) -> Array:
        """The weighted average Σ_m w_m values_m: (..., event axes)."""
        total: Any = 0.0
        for log_weight, component in self._weighted():
            weight = np.exp(log_weight)
            total = total + weight.reshape(*weight.shape, *[1] * event_axes) * values(component)
        return np.asarray(total)

    def _weighted(self) -> Iterator[tuple[Array, Distribution]]:
        """Yield the log-weight, () or (...), of each component that has one anywhere."""
        for log_weight, component in zip(self._log_weights, self._components, strict=True):
            if (log_weight > -np.inf).any() or not log_weight.size:
                yield np.asarray(log_weight), component

    def _row_log_weights(self) -> Array:
        log_weights, batch = self._log_weights, self.batch_shape
        if log_weights.ndim == 1:
            log_weights = log_weights.reshape(-1, *(1 for _ in batch))
        return np.broadcast_to(log_weights, (len(log_weights), *batch))

    # --- moments ---------------------------------------------------------------------------------

    @property
    def mean(self) -> Array:
        """The mean μ*, in the units of y: (..., d)."""
        return self._average(lambda one: one.mean)

    @property
    def center(self) -> Array:
        """The average of the components' centers, which is the mean if there is one: (..., d)."""
        return self._average(lambda one: one.center)

    @property
    def aleatoric(self) -> Array:
        """The aleatoric covariance E[Σ], the noise, in squared units of y: (..., d, d)."""
        return self._average(lambda one: one.covariance, 2)

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
    def aleatoric_stddev(self) -> Array:
        """Square roots of the diagonal of `aleatoric`: (..., d)."""
        return np.sqrt(self._aleatoric_variance())

    @property
    def epistemic_stddev(self) -> Array:
        """Square roots of the diagonal of `epistemic`: (..., d)."""
        return np.sqrt(self._epistemic_variance())

    def _aleatoric_variance(self) -> Array:
        return self._average(lambda one: one.variance)

    def _epistemic_variance(self) -> Array:
        mean = self.mean
        return self._average(lambda one: (one.mean - mean) ** 2)

    def _spread(self) -> Array:
        """The weighted deviations √w_m (μ_m − μ*): (k, ..., d)."""
        root = np.exp(0.5 * self._row_log_weights())[..., None]
        return root * (np.stack([one.mean for one in self._components]) - self.mean)

    def moments(self) -> MultivariateNormal:
        """The normal with the mean and covariance of the mixture.

        It is the normal closest to the mixture in KL(mixture ‖ normal). The factor of Σ* comes from
        a QR factorization of the stacked factors √w_m L_mᵀ and √w_m (μ_m − μ*)ᵀ: Σ* is not formed,
        so that only the square root of its condition number is lost in accuracy.
        """
        root = np.moveaxis(self._spread(), 0, -2)
        for log_weight, one in self._weighted():  # one at a time: a stack of all would be large
            factor = np.swapaxes(one.moments().scale_tril, -1, -2)
            rows = np.exp(0.5 * log_weight)[..., None, None] * factor
            root = np.asarray(np.linalg.qr(np.concatenate([root, rows], axis=-2), mode="r"))
        sign = np.where(np.diagonal(root, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
        factor = np.swapaxes(sign[..., None] * root, -1, -2)
        return MultivariateNormal(self.mean, scale_tril=factor, target_names=self.target_names)

    def matched(self) -> Any:
        """One distribution of the components' family, with the mean and covariance of the mixture.

        That of normals is `moments()`. That of Student's t has the (weighted) harmonic mean of
        their degrees of freedom. Where components differ in family, it is `moments()`, too.

        Raises:
            ValueError: there is no covariance.

        """
        first, kinds = self._components[0], {type(one) for one in self._components}
        found = self.moments()
        if len(kinds) > 1 or first.parts() is None:
            return found
        laws = [one.require_elliptical("matched").law for one in self._components]
        return first.require_elliptical("matched").with_moments_of(
            found, laws[0].averaged(laws[1:], np.exp(self._row_log_weights()))
        )
