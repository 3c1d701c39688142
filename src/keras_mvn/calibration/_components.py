"""One factor on the errors of all components of mixtures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_mvn.calibration._quantile import conformal_quantile, rows_needed, too_few_rows
from keras_mvn.calibration._weights import row_weights
from keras_mvn.scores._observations import Observations

__all__ = ["covering_square_of_components", "most_likely_square_of_components"]

MOST_STEPS = 500
"""Maximum number of EM steps; some dozens are needed, more where components overlap."""

MOST_ROWS = 1000
"""Rows whose regions are drawn: the share of these within is known to a percent."""

DRAWS = 400
"""Draws from each row's distribution for one factor."""

WIDEST = 8.0
"""Largest factor on standard deviations that is sought, beside the most likely one."""

HALVINGS = 12
"""Steps of the search, after which the factor is known to 0.1 %."""


def most_likely_square_of_components(rows: Observations, _: float, robust: bool) -> float:
    """Return the square of the most likely factor on the standard deviations of all components.

    An EM algorithm: rows are shared among the components by how probable these make them; the
    factor is that of a single elliptical distribution, with the shares as weights.

    Args:
        rows: predictions that are mixtures of elliptical ones, and what was observed.
        robust: whether the influence of each row is bounded.

    """
    parts = rows.answer.parts()
    assert parts is not None
    count = rows.count
    squares, density = [], []
    for part in parts:
        z, half_log_det = part.gaussian.whiten(rows.y - part.gaussian.mean, rows.observed)
        squares.append((z**2).sum(axis=-1))
        density.append(part.log_weight - half_log_det)
    q, fixed = np.stack(squares), np.stack(np.broadcast_arrays(*density))

    def step(square: float) -> float:
        logs = fixed + np.stack(
            [part.law.log_density(one / square, count) for part, one in zip(parts, q, strict=True)]
        )
        share = np.exp(logs - np.logaddexp.reduce(logs, axis=0))
        pull = np.stack(
            [
                row_weights(part.law, one / square, count, robust)
                for part, one in zip(parts, q, strict=True)
            ]
        )
        return float((share * pull * q).sum() / count.sum())

    found, before = 1.0, math.nan
    for _step in range(MOST_STEPS):
        before, found = found, step(found)
        if abs(found - before) <= 1e-10 * found or found == 0.0:
            break
    return found


def covering_square_of_components(rows: Observations, level: float, robust: bool) -> float:
    """Return the square of the factor at which regions of highest density hold `level` of the rows.

    Regions are found by draws, with the same random numbers for every factor.

    Raises:
        ValueError: there are too few rows.

    """
    used = np.flatnonzero(rows.count > 0)
    kept: Any = rows[used[:: max(1, -(-len(used) // MOST_ROWS))]]
    if len(kept) < rows_needed(level):
        raise too_few_rows("Temperature.fit", len(kept), level)

    def holds(factor: float) -> bool:
        levels = kept.answer.rescale(factor).region_level(
            kept.with_gaps, kept.missing, samples=DRAWS
        )
        return conformal_quantile(levels, level) <= level

    likely = math.sqrt(most_likely_square_of_components(rows, level, robust) or 1.0)
    low, high = math.log(likely / WIDEST), math.log(likely * WIDEST)
    for _step in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(2.0 * high)
