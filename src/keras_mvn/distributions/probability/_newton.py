"""Newton's method for many rows at once, each with steps of its own length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["damped_newton"]

_CLOSE = 1e-6
"""Units below which a step is the last."""


def damped_newton(
    at: Callable[[Array], tuple[Array, Array, Array]],
    start: Array,
    unit: Array,
    steps: int,
    halvings: int,
) -> tuple[Array, Array]:
    """The point (rows, m) where no row's merit grows any more, and the matrix there.

    Args:
        at: points → merit (rows,), slope (rows, m) and matrix (rows, m, m): the step is
            matrix⁻¹ slope, halved in the rows whose merit would fall or be NaN.
        start: (rows, m).
        unit: (rows, m), what steps are measured in.
        steps: at most.
        halvings: of a step, at most; then the row stays where it is.

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
