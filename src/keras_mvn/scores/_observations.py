"""Predictions beside the observed targets, row by row, in blocks that fit into memory.

Scores and calibration read both through here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import fitting, positive
from keras_mvn._core.targets import observed_targets
from keras_mvn._core.types import Array
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions._require import require_normal

__all__ = ["Observations", "target_units"]

BLOCK = 2_000_000
"""Numbers in memory at a time, for each array of a score."""


def target_units(target_scale: Any, event_size: int) -> Array:
    """The units in which targets are compared: (d,).

    Raises:
        ValueError: target_scale is not positive, or not one number or d numbers.

    """
    units = fitting(positive(target_scale, "target_scale"), (event_size,), "target_scale")
    if units.shape != (event_size,):
        raise ValueError(
            f"target_scale has shape {units.shape}; expected one number, or {event_size}."
        )
    return units


@final
@dataclass(frozen=True)
class Observations:
    """n distributions, and y for each of them."""

    normal: MultivariateNormal
    """Of batch shape (n,)."""
    y: Array
    """(n, d); the predicted mean where nothing was observed, so that nothing is off there."""
    observed: Array | None
    """(n, d) of 1 and 0; None: everything is."""
    batch_shape: tuple[int, ...]
    """The batch axes as the user has them."""

    @classmethod
    def read(cls, normal: MultivariateNormal, y: Any, missing: str) -> Self:
        """Both on common batch axes.

        Raises:
            ValueError: as `MultivariateNormal.log_prob`.

        """
        require_normal(normal)
        values, observed = observed_targets(y, missing, normal.target_names)
        shape = normal.residual(values).shape  # refuses what does not fit
        rows, d = int(np.prod(shape[:-1])), shape[-1]
        flat = (normal + np.zeros(shape)).flatten()
        values = np.broadcast_to(values, shape).reshape(rows, d)
        if observed is not None:
            observed = np.broadcast_to(observed, shape).reshape(rows, d)
            values = np.where(observed > 0, values, flat.mean)
        return cls(flat, values, observed, shape[:-1])

    @property
    def gaussian(self) -> Gaussian:
        """The distributions' factors."""
        return Gaussian.of(self.normal)

    @property
    def event_size(self) -> int:
        """d."""
        return self.normal.event_size

    @property
    def residual(self) -> Array:
        """Y − μ, 0 where y was not observed: (n, d)."""
        return self.y - self.normal.mean

    @property
    def is_observed(self) -> np.ndarray:
        """Which targets were observed: (n, d), boolean."""
        shape = self.y.shape
        return np.ones(shape, bool) if self.observed is None else self.observed > 0

    @functools.cached_property
    def squared_distances(self) -> Array:
        """Squared Mahalanobis distances in the marginal of the observed targets: (n,)."""
        z, _ = self.gaussian.whiten(self.residual, self.observed)
        return np.asarray((z**2).sum(axis=-1))

    def standardized(self) -> Array:
        """(y − μ)/σ, target by target, NaN where y was not observed: (n, d)."""
        return self.of_observed(self.residual / self.normal.stddev, np.nan)

    def complete(self) -> Observations:
        """The rows without gaps."""
        return self if self.observed is None else self[self.is_observed.all(axis=-1)]

    def parts(self, numbers: int) -> Iterator[Observations]:
        """The rows in blocks, for work that holds so many numbers in memory for each row."""
        step = max(1, BLOCK // numbers) if numbers else max(1, len(self))
        return (self[start : start + step] for start in range(0, len(self), step))

    @functools.cached_property
    def stddev(self) -> Array:
        """σ, in the units of y: (n, d)."""
        return self.normal.stddev

    @property
    def count(self) -> Array:
        """How many targets were observed: (n,)."""
        if self.observed is None:
            return np.full(len(self), float(self.event_size))
        return np.asarray(self.observed.sum(axis=-1))

    def of_observed(self, values: Array, otherwise: float = 0.0) -> Array:
        """(n, d) values, and `otherwise` where y was not observed."""
        return values if self.observed is None else np.where(self.observed > 0, values, otherwise)

    def in_units(self, units: Array) -> Observations:
        """The same in other units of the targets, (d,)."""
        return Observations(
            self.normal * (1.0 / units), self.y / units, self.observed, self.batch_shape
        )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> Observations:
        observed = None if self.observed is None else self.observed[index]
        y = self.y[index]
        return Observations(self.normal[index], y, observed, y.shape[:-1])

    def score(self, function: Callable[[Observations], Array], numbers: int = 0) -> Array:
        """What `function` gives for these rows, (n, ...), on the user's batch axes.

        Args:
            function: of observations; called with blocks of rows.
            numbers: how many `function` holds in memory for each row; 0: all rows in one block.

        """
        found = [function(part) for part in self.parts(numbers)] or [function(self)]
        values = np.concatenate(found)
        shaped: Array = values.reshape((*self.batch_shape, *values.shape[1:]))
        return shaped[()]  # a number of a single distribution
