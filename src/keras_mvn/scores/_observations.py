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
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions._parts import Part
from keras_mvn.distributions._radial_law import RadialLaw
from keras_mvn.distributions.base import Distribution, require_distribution

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

    answer: Distribution
    """Predictions with batch shape (n,)."""
    y: Array
    """(n, d), the predicted center where y is missing, so that the residual is 0 there."""
    observed: Array | None
    """(n, d), 1 where observed and 0 where missing; None if everything was observed."""
    batch_shape: tuple[int, ...]
    """The batch axes of the user's arrays."""

    @classmethod
    def read(cls, answer: Distribution, y: Any, missing: str) -> Self:
        """Create the observations, with predictions and y on common batch axes.

        Raises:
            TypeError: the predictions are no distributions.
            ValueError: as for `Distribution.log_prob`.

        """
        require_distribution(answer)
        return cls.of(answer, *observed_targets(y, missing, answer.target_names))

    @classmethod
    def of(cls, answer: Distribution, values: Array, observed: Array | None) -> Self:
        """Pair distributions with what `observed_targets` returned, on common batch axes.

        Raises:
            ValueError: shapes do not fit.

        """
        shape = answer.common_shape(values)  # raises an error if shapes do not fit
        rows, d = int(np.prod(shape[:-1])), shape[-1]
        on_batch = answer if answer.batch_shape == shape[:-1] else answer.broadcast_to(shape[:-1])
        flat = on_batch.flatten()
        values = np.broadcast_to(values, shape).reshape(rows, d)
        if observed is not None:
            observed = np.broadcast_to(observed, shape).reshape(rows, d)
            values = np.where(observed > 0, values, flat.center)
        return cls(flat, values, observed, shape[:-1])

    @property
    def event_size(self) -> int:
        """The number of targets, d."""
        return self.answer.event_size

    @property
    def residual(self) -> Array:
        """The residuals y − E y, 0 where y is missing: (n, d)."""
        return self.of_observed(self.y - self.answer.mean)

    @property
    def is_observed(self) -> np.ndarray:
        """Whether each target was observed: (n, d), boolean."""
        shape = self.y.shape
        return np.ones(shape, bool) if self.observed is None else self.observed > 0

    @property
    def missing(self) -> str:
        """What distributions are to do with NaN in `with_gaps`."""
        return "raise" if self.observed is None else "marginalize"

    @property
    def with_gaps(self) -> Array:
        """y with NaN where it is missing: (n, d)."""
        return self.of_observed(self.y, np.nan)

    # --- elliptical distributions ----------------------------------------------------------------

    @functools.cached_property
    def part(self) -> Part:
        """The location, scale matrix and law of elliptical distributions."""
        return self.answer.require_elliptical("This function").parts()[0]

    @property
    def gaussian(self) -> Gaussian:
        """The location and scale matrix of elliptical distributions."""
        return self.part.gaussian

    @property
    def law(self) -> RadialLaw:
        """The law of the radius of elliptical distributions."""
        return self.part.law

    @functools.cached_property
    def squared_distances(self) -> Array:
        """Squared Mahalanobis distances in the marginal of the observed targets: (n,)."""
        return (self.whitened**2).sum(axis=-1)

    @property
    def whitened(self) -> Array:
        """The whitened residuals z, whose ‖z‖ is the distance of the observed targets: (n, d)."""
        return self.gaussian.whiten(self.y - self.gaussian.mean, self.observed)[0]

    @functools.cached_property
    def chi_squares(self) -> Array:
        """The χ² values of the same level as the squared distances: (n,)."""
        return self.law.chi_square(self.squared_distances, self.count)

    def in_scales(self) -> Array:
        """Return (y − μ)/s with s² = diag Σ, target by target, NaN where y is missing: (n, d)."""
        scale = np.sqrt(self.gaussian.variance())
        return self.of_observed((self.y - self.gaussian.mean) / scale, np.nan)

    def normal_scores(self) -> Array:
        """Return the standard normal values of the same level as `in_scales`: (n, d)."""
        return self.law.standard_normal(self.in_scales())

    # --- rows ------------------------------------------------------------------------------------

    def complete(self) -> Observations:
        """Return the rows without missing values."""
        return self if self.observed is None else self[self.is_observed.all(axis=-1)]

    def parts(self, numbers: int) -> Iterator[Observations]:
        """Return the rows in blocks, for work that holds `numbers` values in memory per row."""
        step = max(1, BLOCK // numbers) if numbers else len(self)
        if step >= len(self):  # as they are: nothing is copied
            return iter([self])
        return (self[start : start + step] for start in range(0, len(self), step))

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
            self.answer * (1.0 / units), self.y / units, self.observed, self.batch_shape
        )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> Observations:
        observed = None if self.observed is None else self.observed[index]
        y = self.y[index]
        return Observations(self.answer[index], y, observed, y.shape[:-1])

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
