"""Newton's method for many rows at once, each with its own step length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["damped_newton"]

_CLOSE = 1e-6
"""Size of a step, in units, below which it is the last."""


def damped_newton(
    at: Callable[[Array], tuple[Array, Array, Array]],
    start: Array,
    unit: Array,
    steps: int,
    halvings: int,
) -> tuple[Array, Array]:
    """Return the point (rows, m) where no row's merit increases further, and the matrix there.

    Args:
        at: function from points to merit (rows,), slope (rows, m) and matrix (rows, m, m). The step
            is matrix⁻¹ slope, halved in rows whose merit would decrease or be NaN.
        start: (rows, m), initial point.
        unit: (rows, m), units in which steps are measured.
        steps: maximum number of steps.
        halvings: maximum number of halvings of a step, after which the row stays where it is.

    """
    point, found = start, at(start)
    for _ in range(steps):
        merit, slope, matrix = found
        step = np.linalg.solve(matrix, slope[..., None])[..., 0]
        size = np.ones((len(start), 1))
        for _ in range(halvings):
            found = at(point + size * step)
            worse = ~(found[0] >= merit)[:, None]
            if not worse.any():
                break
            size = np.where(worse, 0.5 * size, size)
        else:
            size = np.where(worse, 0.0, size)
            found = at(point + size * step)
        point = point + size * step
        if (np.abs(size * step) / unit < _CLOSE).all():
            break
    return point, found[2]
