"""Integrals over a unit cube, on Sobol' points that are shifted at random several times.

The spread of the shifts' estimates is the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["integrate", "parts", "shifted_points"]

SHIFTS = 8
"""Random shifts of the points."""

_CHUNK = 4_000_000
"""Numbers in memory at a time."""


def integrate(
    of: Callable[[slice, Array], Array],
    rows: int,
    dimensions: int,
    memory: int,
    samples: int,
    seed: int,
) -> tuple[Array, Array]:
    """Mean and two standard errors of `of(rows, points in the unit cube)` (rows, points)."""
    estimates = np.zeros((SHIFTS, rows))
    rng = np.random.default_rng(seed)
    for k in range(SHIFTS):
        points = shifted_points(dimensions, math.ceil(samples / SHIFTS), rng)
        for part in parts(rows, len(points) * memory):
            estimates[k, part] = of(part, points).mean(axis=-1)
    size = estimates.max(axis=0, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # In units of their own: squares of 1e-200 would be 0, and so would the error.
        relative = np.where(size > 0, estimates / size, 0.0)
    error = 2.0 * relative.std(axis=0, ddof=1) / math.sqrt(SHIFTS)
    return estimates.mean(axis=0), size * error


def shifted_points(dimensions: int, count: int, rng: np.random.Generator) -> Array:
    """The first Sobol' points, at least so many, shifted at random: a power of two of them."""
    sobol = require("scipy.stats.qmc", "probability").Sobol(dimensions, scramble=False)
    base = sobol.random_base2(math.ceil(math.log2(max(count, 8))))
    shifted = (base + rng.random(dimensions)) % 1.0
    folded = 1.0 - np.abs(2.0 * shifted - 1.0)  # the baker's transform
    return np.asarray(np.clip(folded, 1e-16, 1.0 - 1e-16))


def parts(rows: int, memory: int) -> list[slice]:
    """Slices of rows that take so many numbers each, as many as fit in memory."""
    step = max(1, _CHUNK // memory)
    return [slice(start, start + step) for start in range(0, rows, step)]
