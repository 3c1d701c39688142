"""The resolution of targets whose values repeat, and the floor that it sets for their scales.

A density at a value that many rows share can be made as high as one likes, by a scale that goes to
0 there. What was observed, though, is not a point but a cell of width δ, the resolution of the
target: a scale below that of the rounding error, δ/√12, means nothing.
"""

from __future__ import annotations

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["SHARE_OF_SPREAD", "resolution", "scale_floor"]

SHARE_OF_SPREAD = 1e-4
"""Floor of scales as a share of the spread of the target, for every target.

Four decimal digits: below what float32 arithmetic of a network resolves after a few layers.
"""

_ODD = 0.05
"""Share of values that may lie off the grid."""

_ATOM = 0.05
"""Share of rows that makes a value an atom."""

_CROWD = 4.0
"""Rows per repeated value from which values are a grid, however it is spaced."""

_MISFIT = 0.05
"""Distance of gaps from multiples of δ, in δ, up to which a grid is even."""

_DIGITS = 1e-9
"""Gaps below this share of the central range are none."""


def resolution(values: Array) -> Array:
    """Return the resolution δ of each target: (d,), 0 where values do not repeat.

    The smallest gap between neighboring values that occur more than once, but for the closest 5 %
    of rows: so a few odd values (and up to 5 % of all rows) change nothing. Values count as a grid
    if nineteen in twenty rows have one that repeats, and such values either have four rows each or
    are evenly spaced; rows that were written twice are none. Where there is no grid, but single
    values that many rows share (no rain, a sensor's limit), it is the distance from them within
    which 5 % of the other values are.

    Args:
        values: (rows, d), NaN where missing.

    >>> rounded = np.round(np.random.default_rng(0).normal(size=(500, 1)), 1)
    >>> resolution(np.hstack([rounded, np.random.default_rng(1).normal(size=(500, 1))])).round(9)
    array([0.1, 0. ])

    """
    return np.array([_of_one(column[~np.isnan(column)]) for column in values.T])


def _of_one(values: Array) -> float:
    found, counts = _distinct(values)
    repeated = counts > 1
    if len(found) < 2:
        return 0.0
    if repeated.sum() < 2 or counts[repeated].sum() < (1.0 - _ODD) * len(values):
        return _from_atoms(found, counts)
    grid = _of_grid(found[repeated], counts[repeated])
    return grid or _from_atoms(found, counts)


def _of_grid(found: Array, counts: np.ndarray) -> float:
    """Return the smallest gap, from the values that repeat and their counts; 0 for no grid."""
    gaps, weights = np.diff(found), np.minimum(counts[1:], counts[:-1])
    order = np.argsort(gaps)
    share = np.cumsum(weights[order]) / weights.sum()
    smallest = float(gaps[order][np.searchsorted(share, _ODD)])
    off_grid = np.abs(gaps / smallest - np.round(gaps / smallest)) > _MISFIT
    even = weights[off_grid].sum() <= _ODD * weights.sum()
    return smallest if even or counts.mean() >= _CROWD else 0.0


def _from_atoms(found: Array, counts: np.ndarray) -> float:
    """Return how close other values come to those that many rows share; 0 if there are none."""
    atom = counts >= max(_ATOM * counts.sum(), 3.0)
    if not atom.any() or atom.all():
        return 0.0
    others, atoms = found[~atom], found[atom]
    distance = np.abs(others[:, None] - atoms[None, :]).min(axis=1)
    return float(np.quantile(np.repeat(distance, counts[~atom]), _ODD))


def _distinct(values: Array) -> tuple[Array, np.ndarray]:
    """Return the distinct values and their counts; sums of decimals differ in their last digits."""
    found, counts = np.unique(values, return_counts=True)
    if len(found) < 2:
        return found, counts
    central = float(np.diff(np.quantile(values, (0.01, 0.99)))[0]) or found[-1] - found[0]
    rounding = np.maximum(_DIGITS * central, 8.0 * np.spacing(np.abs(found)))
    new = np.diff(found, prepend=-np.inf) > rounding
    return found[new], np.add.reduceat(counts, np.flatnonzero(new))


def scale_floor(resolution: Array, spread: Array) -> Array:
    """Return what scales stay above: (d,), δ/√12 or `SHARE_OF_SPREAD` of the spread.

    δ/√12 is the standard deviation of a rounding error, which is uniform over δ.
    """
    return np.maximum(resolution / np.sqrt(12.0), SHARE_OF_SPREAD * spread)
