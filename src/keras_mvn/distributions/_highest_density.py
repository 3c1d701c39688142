"""Regions of highest density, whose limit is estimated by draws."""

from __future__ import annotations

import math
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import finite, whole
from keras_mvn._core.optional import require
from keras_mvn._core.targets import in_order
from keras_mvn._core.types import Array
from keras_mvn.distributions._batch import Batch
from keras_mvn.distributions.base import Distribution

__all__ = ["HighestDensityRegion", "level_of", "log_densities"]

_GRID = 201
"""Number of grid lines in each direction of an outline."""

_CHUNK = 2_000_000
"""Maximum number of values drawn at a time."""


@final
class HighestDensityRegion(Batch):
    """A batch of regions of all y whose density is above a limit, one region per row.

    It is the smallest region of its probability, and may have several pieces.

    Args:
        distribution: the distributions, of batch shape (...).
        level: probability of the region; above 1, it reaches so many nats below the least likely of
            the draws.
        log_densities: log-densities at draws from each distribution, (n, ...).

    """

    def __init__(self, distribution: Distribution, level: float, log_densities: Array) -> None:
        self.distribution, self.level = distribution, level
        self._log_densities = log_densities
        beyond = max(level - 1.0, 0.0)
        self.log_limit = np.quantile(log_densities, max(1.0 - level, 0.0), axis=0) - beyond

    def contains(self, y: Any) -> np.ndarray:
        """Whether y (..., d) is inside: (...), boolean.

        Raises:
            ValueError: y does not fit the distributions, or is not finite.

        """
        values = finite(in_order(y, self.distribution.target_names), "y")
        return np.asarray(self.distribution.log_prob(values) >= self.log_limit)

    def outline(self) -> list[Array]:
        """The border of a single region of two targets, as closed curves: (2, points) each.

        Raises:
            ValueError: there is a batch, or not two targets.
            ImportError: contourpy, which Matplotlib brings, is not installed.

        """
        if self.batch_shape or self.distribution.event_size != 2:
            raise ValueError(f"outline draws one region of two targets; this is {self!r}.")
        contourpy = require("contourpy", "outline")
        low, high = self.distribution.quantile([1e-4, 1.0 - 1e-4])
        x, y = (np.linspace(a, b, _GRID) for a, b in zip(low, high, strict=True))
        density = self.distribution.log_prob(np.stack(np.meshgrid(x, y), axis=-1))
        return [
            curve.T for curve in contourpy.contour_generator(x, y, density).lines(self.log_limit)
        ]

    @property
    def log_volume(self) -> Array:
        """The log-volume log ∫ 1{p(y) ≥ limit} dy = log E[1{p ≥ limit}/p], by the draws: (...)."""
        inside = self._log_densities >= self.log_limit
        terms = np.where(inside, -self._log_densities, -np.inf)
        found = np.logaddexp.reduce(terms, axis=0) - math.log(len(terms))
        return np.asarray(found)

    @property
    def volume(self) -> Array:
        """The volume exp(log_volume), which may exceed float64 for many targets: (...)."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self.log_volume)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes; () for a single region."""
        return self.distribution.batch_shape

    def _take(self, index: Any) -> HighestDensityRegion:
        flat = self._log_densities.reshape(len(self._log_densities), -1)
        rows = np.arange(flat.shape[1]).reshape(self.batch_shape)[index]
        return HighestDensityRegion(self.distribution[index], self.level, flat[:, rows])

    def __repr__(self) -> str:
        return (
            f"HighestDensityRegion(level={self.level:g}, batch_shape={self.batch_shape}, "
            f"event_size={self.distribution.event_size})"
        )


def log_densities(distribution: Distribution, samples: int, seed: Any) -> Array:
    """Return the log-densities at draws from each distribution: (samples, ...)."""
    whole(samples, "samples", "a number of draws", 100)
    if not distribution.batch_shape:
        return distribution.log_prob(distribution.sample(samples, seed))
    flat, generator = distribution.flatten(), np.random.default_rng(seed)
    step = max(1, _CHUNK // (samples * distribution.event_size))
    found = [np.zeros((samples, 0))]
    for start in range(0, len(flat), step):
        part = flat[start : start + step]
        found.append(part.log_prob(part.sample(samples, generator)))
    return np.concatenate(found, axis=1).reshape(samples, *distribution.batch_shape)


def level_of(
    distribution: Distribution,
    values: Array,
    observed: Array | None,
    samples: int,
    seed: Any,
    beyond: bool = False,
) -> Array:
    """Return the probability of a higher density than at these values: (...).

    Args:
        distribution: the distributions.
        values: (..., d), whatever where they are missing.
        observed: (..., d), 1 where observed and 0 where missing; None if everything was observed.
        samples: number of draws per distribution.
        seed: seed of the draws.
        beyond: whether to add how many nats a density is below that of every draw.

    """
    shape = distribution.common_shape(values)
    flat = distribution.broadcast_to(shape[:-1]).flatten()
    y = np.broadcast_to(values, shape).reshape(-1, shape[-1])
    seen = np.ones(y.shape, bool)
    if observed is not None:
        seen = np.broadcast_to(observed, shape).reshape(y.shape) > 0
    found = np.zeros(len(y))
    patterns, which = np.unique(seen, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        rows = np.flatnonzero(which.reshape(-1) == k)
        if not pattern.any():
            continue
        part = flat[rows].marginal(np.flatnonzero(pattern))
        drawn = log_densities(part, samples, seed)
        density = part.log_prob(y[rows][:, pattern])
        found[rows] = (drawn > density).mean(axis=0)
        if beyond:
            found[rows] += np.maximum(drawn.min(axis=0) - density, 0.0)
    return found.reshape(shape[:-1])[()]
