"""The log score of rounded values: the probability of the cell that each of them stands for."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from keras_mvn._core.checks import as_numpy, whole
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions.base import Distribution
from keras_mvn.scores._observations import Observations

__all__ = ["cell_log_score", "cell_log_score_of", "cell_widths"]

POINTS = 256
"""Points in the cell of each row, at which its density is averaged."""

_FEWEST = 24.0
"""Points that have to matter: with fewer, the density is a spike in the cell, to be integrated."""


def cell_log_score(
    answer: Distribution,
    y: Any,
    resolution: Any,
    missing: str = "raise",
    samples: int = POINTS,
    seed: int = 0,
) -> Array:
    """Return −log P(y − δ/2 ≤ Y ≤ y + δ/2), the log score of rounded values, in nats: (...).

    Where values repeat (counts, rounded measurements), what was observed is not y, but that the
    value is in a cell of width δ around y. A density can be made as high as one likes where many
    rows share a value; the probability of the cell cannot. All targets are taken jointly; for
    targets with δ = 0 it is their density, as in `log_score`, to which the score converges, less
    log δ, as δ goes to 0.

    The density is averaged over points in the cell (Sobol's, shifted at random), with an error of
    about 0.01 where standard deviations are above δ/√12, as those of a head with `min_scale` are.
    Where the density is a spike within the cell, the box is integrated as in
    `Distribution.probability`, for the targets with δ > 0 given the others.

    Args:
        answer: predicted distributions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        resolution: δ, one number or (d,), in the units of y, such as `head.resolution`; 0 for a
            target whose values do not repeat.
        missing: as in `log_score`.
        samples: number of points in the cell of each row.
        seed: seed of the shift; the same seed gives the same estimate.

    Raises:
        ValueError: δ is negative or does not fit; or as for `log_score`.
        ImportError: SciPy is not installed.

    Source: Heitjan, "Inference from grouped continuous data: a review", Statistical Science 4
    (1989).

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([0.0], covariance=[[1.0]])
    >>> cell_log_score(normal, [1.0], resolution=2.0).round(3)  # −log (Φ(2) − Φ(0))
    np.float64(0.74)

    """
    rows = Observations.read(answer, y, missing)
    widths = cell_widths(resolution, rows.event_size)
    count = whole(samples, "samples", "a number of points", 8)
    return cell_log_score_of(rows, widths, count, seed)


def cell_widths(resolution: Any, event_size: int) -> Array:
    """Return the width of the cells of each target: (d,).

    Raises:
        ValueError: a width is negative or not finite, or their number is wrong.

    """
    widths = np.asarray(as_numpy(resolution), np.float64)
    if widths.shape not in ((), (1,), (event_size,)) or not np.isfinite(widths).all():
        raise ValueError(
            f"resolution={resolution!r} must be one finite number, or one per target "
            f"({event_size},)."
        )
    if (widths < 0.0).any():
        raise ValueError(f"resolution={resolution!r} must not be negative; 0 means no cells.")
    return np.broadcast_to(widths, (event_size,))


def cell_log_score_of(
    rows: Observations, widths: Array, samples: int = POINTS, seed: int = 0
) -> Array:
    """Return the score of the observed targets of each row, in blocks of rows."""
    function = functools.partial(_of_block, widths=widths, samples=samples, seed=seed)
    return rows.score(function, samples * rows.event_size)


def _of_block(rows: Observations, widths: Array, samples: int, seed: int) -> Array:
    """Return the score of each row: (n,)."""
    grid = widths > 0.0
    if not grid.any():
        return -np.asarray(rows.answer.log_prob(rows.with_gaps, rows.missing))
    offsets = np.zeros((samples, 1, rows.event_size))
    offsets[:, 0, grid] = _points(samples, int(grid.sum()), seed) * widths[grid]
    density = rows.answer.log_prob(rows.with_gaps + offsets, rows.missing)
    peak = density.max(axis=0)
    weight = np.exp(density - peak)
    log_width = np.where(grid, np.log(np.where(grid, widths, 1.0)), 0.0)
    found = peak + np.log(weight.mean(axis=0)) + rows.is_observed @ log_width
    spiky = weight.sum(axis=0) ** 2 < _FEWEST * (weight**2).sum(axis=0)
    if spiky.any():
        exact = _integrated(rows[spiky], widths, seed)
        found[spiky] = np.where(np.isfinite(exact), exact, found[spiky])
    return np.asarray(-found)


def _points(count: int, dimensions: int, seed: int) -> Array:
    """Return points of the cube from −½ to ½: (count, dimensions)."""
    sobol = require("scipy.stats.qmc", "cell_log_score").Sobol(dimensions, scramble=True, rng=seed)
    return np.asarray(sobol.random_base2(int(np.ceil(np.log2(count))))[:count] - 0.5)


def _integrated(rows: Observations, widths: Array, seed: int) -> Array:
    """Return log P, (n,), by the integral over the box; −inf where it is too small for float64."""
    patterns, which = np.unique(rows.is_observed, axis=0, return_inverse=True)
    found = np.zeros(len(rows))
    for i, pattern in enumerate(patterns):
        members = np.flatnonzero(which.ravel() == i)
        found[members] = _of_pattern(rows[members], pattern, widths, seed)
    return found


def _of_pattern(rows: Observations, observed: np.ndarray, widths: Array, seed: int) -> Array:
    """Return log P of rows in which the same targets were observed: (n,)."""
    points, cells = (
        np.flatnonzero(observed & (widths == 0.0)),
        np.flatnonzero(observed & (widths > 0)),
    )
    answer, log_density = rows.answer.with_names(None), np.zeros(len(rows))
    if len(points):
        y = np.where(np.isin(np.arange(len(widths)), points), rows.y, np.nan)
        log_density = answer.log_prob(y, "marginalize")
    if not len(cells):
        return np.asarray(log_density)
    order = [*cells, *points]
    answer = answer.marginal([int(j) for j in order])
    if len(points):
        given = {len(cells) + i: rows.y[:, j] for i, j in enumerate(points)}
        answer = answer.condition(given)
    y, half = rows.y[:, cells], 0.5 * widths[cells]
    with np.errstate(divide="ignore"):
        box = np.log(answer.probability(y - half, y + half, samples=1024, seed=seed))
    return np.asarray(log_density + box)
