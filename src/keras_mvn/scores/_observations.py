"""Predictions and observed targets, row by row, in blocks that fit into memory.

Scores and calibration read both with this module.
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
"""Number of values in memory at a time, for each array of a score."""


def target_units(target_scale: Any, event_size: int) -> Array:
    """Return the units in which targets are compared: (d,).

    Raises:
        ValueError: target_scale is not positive, or is neither one number nor d numbers.

    """
    units = fitting(positive(target_scale, "target_scale"), (event_size,), "target_scale")
    if units.shape != (event_size,):
        raise ValueError(
            f"target_scale has shape {units.shape}; expected one number, or ({event_size},)."
        )
    return units


@final
@dataclass(frozen=True)
class Observations:
    """The predictions for n rows, and the observed values of each row."""

    normal: MultivariateNormal
    """Predictions with batch shape (n,)."""
    y: Array
    """(n, d), the predicted mean where y is missing, so that the residual is 0 there."""
    observed: Array | None
    """(n, d), 1 where observed and 0 where missing; None if everything was observed."""
    batch_shape: tuple[int, ...]
    """The batch axes of the user's arrays."""

    @classmethod
    def read(cls, normal: MultivariateNormal, y: Any, missing: str) -> Self:
        """Create the observations, with predictions and y on common batch axes.

        Raises:
            ValueError: as for `MultivariateNormal.log_prob`.

        """
        require_normal(normal)
        return cls.of(normal, *observed_targets(y, missing, normal.target_names))

    @classmethod
    def of(cls, normal: MultivariateNormal, values: Array, observed: Array | None) -> Self:
        """Pair distributions with what `observed_targets` returned, on common batch axes.

        Raises:
            ValueError: shapes do not fit.

        """
        shape = normal.residual(values).shape  # raises an error if shapes do not fit
        rows, d = int(np.prod(shape[:-1])), shape[-1]
        on_batch = normal if normal.mean.shape == shape else normal + np.zeros(shape)
        flat = on_batch.flatten()
        values = np.broadcast_to(values, shape).reshape(rows, d)
        if observed is not None:
            observed = np.broadcast_to(observed, shape).reshape(rows, d)
            values = np.where(observed > 0, values, flat.mean)
        return cls(flat, values, observed, shape[:-1])

    @property
    def gaussian(self) -> Gaussian:
        """The factors of the distributions."""
        return Gaussian.of(self.normal)

    @property
    def event_size(self) -> int:
        """The number of targets, d."""
        return self.normal.event_size

    @property
    def residual(self) -> Array:
        """The residuals y − μ, 0 where y is missing: (n, d)."""
        return self.y - self.normal.mean

    @property
    def is_observed(self) -> np.ndarray:
        """Whether each target was observed: (n, d), boolean."""
        shape = self.y.shape
        return np.ones(shape, bool) if self.observed is None else self.observed > 0

    @functools.cached_property
    def squared_distances(self) -> Array:
        """Squared Mahalanobis distances in the marginal of the observed targets: (n,)."""
        z, _ = self.gaussian.whiten(self.residual, self.observed)
        return np.asarray((z**2).sum(axis=-1))

    def standardized(self) -> Array:
        """Return (y − μ)/σ, target by target, NaN where y is missing: (n, d)."""
        return self.of_observed(self.residual / self.normal.stddev, np.nan)

    def complete(self) -> Observations:
        """Return the rows without missing values."""
        return self if self.observed is None else self[self.is_observed.all(axis=-1)]

    def parts(self, numbers: int) -> Iterator[Observations]:
        """Return the rows in blocks, for work that holds `numbers` values in memory per row."""
        step = max(1, BLOCK // numbers) if numbers else len(self)
        if step >= len(self):  # as they are: nothing is copied
            return iter([self])
        return (self[start : start + step] for start in range(0, len(self), step))

    @functools.cached_property
    def stddev(self) -> Array:
        """The standard deviations σ, in the units of y: (n, d)."""
        return self.normal.stddev

    @property
    def count(self) -> Array:
        """The number of observed targets of each row: (n,)."""
        if self.observed is None:
            return np.full(len(self), float(self.event_size))
        return np.asarray(self.observed.sum(axis=-1))

    def of_observed(self, values: Array, otherwise: float = 0.0) -> Array:
        """Return values, (n, d), with `otherwise` where y is missing."""
        return values if self.observed is None else np.where(self.observed > 0, values, otherwise)

    def in_units(self, units: Array) -> Observations:
        """Return the same observations in other units of the targets, (d,)."""
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
        """Apply `function` to these rows, and return its values on the user's batch axes.

        Args:
            function: a function of observations that returns (n, ...); called with blocks of rows.
            numbers: int, number of values that `function` holds in memory per row; 0 puts all rows
                in one block.

        """
        values = np.concatenate([function(part) for part in self.parts(numbers)])
        shaped: Array = values.reshape((*self.batch_shape, *values.shape[1:]))
        return shaped[()]  # a scalar for a single distribution
