"""Integrals over a unit cube, by Sobol' points with several random shifts.

The spread of the estimates over the shifts gives the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["integrate", "parts", "shifted_points"]

SHIFTS = 8
"""Number of random shifts of the points."""

_CHUNK = 4_000_000
"""Maximum number of values in memory at a time."""


def integrate(
    of: Callable[[slice, Array], Array],
    rows: int,
    dimensions: int,
    memory: int,
    samples: int,
    seed: int,
) -> tuple[Array, Array]:
    """Return the mean over points and two standard errors of `of(rows, points)`, in a unit cube."""
    estimates = np.zeros((SHIFTS, rows))
    rng = np.random.default_rng(seed)
    for k in range(SHIFTS):
        points = shifted_points(dimensions, math.ceil(samples / SHIFTS), rng)
        for part in parts(rows, len(points) * memory):
            estimates[k, part] = of(part, points).mean(axis=-1)
    size = estimates.max(axis=0, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Relative to the size: squares of 1e-200 would be 0, and so would the error.
        relative = np.where(size > 0, estimates / size, 0.0)
    error = 2.0 * relative.std(axis=0, ddof=1) / math.sqrt(SHIFTS)
    return estimates.mean(axis=0), size * error


def shifted_points(dimensions: int, count: int, rng: np.random.Generator) -> Array:
    """Return the first Sobol' points, at least `count` and a power of two, shifted at random."""
    sobol = require("scipy.stats.qmc", "probability").Sobol(dimensions, scramble=False)
    base = sobol.random_base2(math.ceil(math.log2(max(count, 8))))
    shifted = (base + rng.random(dimensions)) % 1.0
    folded = 1.0 - np.abs(2.0 * shifted - 1.0)  # the baker's transform
    return np.asarray(np.clip(folded, 1e-16, 1.0 - 1e-16))


def parts(rows: int, memory: int) -> list[slice]:
    """Split rows, which take `memory` values each, into slices that fit in memory."""
    step = max(1, _CHUNK // memory)
    return [slice(start, start + step) for start in range(0, rows, step)]
