"""Integrals over a unit cube, on Sobol' points that are shifted at random several times.

The spread of the shifts' estimates is the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from keras_mvn._optional import require
from keras_mvn.types import Array

__all__ = ["integrate"]

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
    base = _points(dimensions, math.ceil(samples / SHIFTS))
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // (len(base) * memory))
    estimates = np.zeros((SHIFTS, rows))
    for k in range(SHIFTS):
        shifted = (base + rng.random(dimensions)) % 1.0
        folded = np.clip(1.0 - np.abs(2.0 * shifted - 1.0), 1e-16, 1.0 - 1e-16)  # baker's transform
        for start in range(0, rows, step):
            part = slice(start, start + step)
            estimates[k, part] = of(part, folded).mean(axis=-1)
    return estimates.mean(axis=0), 2.0 * estimates.std(axis=0, ddof=1) / math.sqrt(SHIFTS)


def _points(dimensions: int, count: int) -> Array:
    """The first Sobol' points, at least so many: a power of two of them."""
    sobol = require("scipy.stats.qmc", "probability").Sobol(dimensions, scramble=False)
    return np.asarray(sobol.random_base2(math.ceil(math.log2(max(count, 8)))))
