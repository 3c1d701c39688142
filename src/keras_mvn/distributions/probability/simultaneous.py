"""Intervals that contain all targets at once, as multiples of the targets' scales."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Array
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions._radial_law import RadialLaw

__all__ = ["simultaneous_multiple"]

_CHUNK = 4_000_000
"""Maximum number of values drawn at a time."""


def simultaneous_multiple(
    gaussian: Gaussian, law: RadialLaw, level: float, how: str | None, samples: int, seed: Any
) -> Array | float:
    """Return c with P(|y_j − μ_j| ≤ c s_j) = level, for each j (None) or for all j at once."""
    d = gaussian.event_size
    per_target = {
        None: 1.0 - level,
        "bonferroni": (1.0 - level) / d,
        "sidak": -math.expm1(math.log(level) / d),
    }
    if how == "exact" and d == 1:
        how = None
    if how in per_target:
        return law.margin_reach(per_target[how])
    if how == "exact":
        count = whole(samples, "samples", "a number of draws", 100)
        return _simulated(gaussian, law, level, count, seed)
    raise ValueError(
        f"simultaneous={how!r} is not known. Expected None, 'bonferroni', 'sidak' or 'exact'."
    )


def _simulated(gaussian: Gaussian, law: RadialLaw, level: float, samples: int, seed: Any) -> Array:
    """Simulate the `level` quantile of max_j |y_j − μ_j| / s_j, with one set of z for all rows."""
    flat, radii = gaussian.flat(), law.flat()
    rows, d = flat.mean.shape

    @functools.cache
    def draws(size: int) -> Array:  # the same for every row, so that no row depends on others
        return np.random.default_rng(seed).standard_normal((samples, 1, size))

    uniform = np.random.default_rng(seed).spawn(1)[0].random(samples)

    def largest_of(part: Gaussian, radius: RadialLaw) -> Array:
        count = len(part.mean)
        errors = part.errors(lambda m: np.broadcast_to(draws(m), (samples, count, m)))
        farthest = np.abs(errors / np.sqrt(part.variance())).max(axis=-1)
        return np.asarray(farthest * radius.scale_at(uniform))

    step = max(1, _CHUNK // (samples * d))
    parts = (slice(start, start + step) for start in range(0, rows, step))
    multiples = [
        np.quantile(largest_of(flat.take(part), radii.take(part)), level, axis=0) for part in parts
    ]
    if not multiples:  # no distributions
        return np.zeros(gaussian.batch_shape)
    return np.concatenate(multiples).reshape(gaussian.batch_shape)
