"""What would be χ² or standard normal if predictions were right: of ellipsoids, and of mixtures."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.scores._observations import Observations

__all__ = ["Standardized"]

MOST_DRAWS, FEWEST_DRAWS, ALL_DRAWS = 1000, 200, 1_000_000
"""Draws from each mixture, of which those of higher density are counted: fewer for many rows."""


class Standardized(NamedTuple):
    """Observed values, in terms that do not depend on the predictions if these are right."""

    chi_squares: Array
    """(n,), χ² with as many degrees of freedom as targets were observed: of the level of the
    smallest region that contains them."""
    scores: Array
    """(n, d), each standard normal, of the level of each target alone; NaN where missing."""
    independent: Array
    """(complete rows, d), independent and standard normal."""

    @classmethod
    def of(cls, rows: Observations) -> Self:
        """Compute them for elliptical distributions, or for mixtures of these."""
        several = len(rows.answer.parts() or ()) > 1
        return cls._of_mixtures(rows) if several else cls._of_ellipsoids(rows)

    @classmethod
    def _of_ellipsoids(cls, rows: Observations) -> Self:
        complete = rows.complete()
        z = complete.y
        if len(complete):
            # The whitened residuals, rescaled to the χ² value of their distance; a normal's stay.
            with np.errstate(invalid="ignore"):
                ratio = np.sqrt(complete.chi_squares / complete.squared_distances)
            z = complete.whitened * np.where(complete.squared_distances > 0, ratio, 1.0)[:, None]
        return cls(rows.chi_squares, rows.normal_scores(), z)

    @classmethod
    def _of_mixtures(cls, rows: Observations) -> Self:
        scores = rows.of_observed(_normal_score(rows.answer.marginal_cdf(rows.y)), np.nan)
        return cls(_chi_squares(rows), scores, _rosenblatt(rows.complete()))


def _chi_squares(rows: Observations) -> Array:
    """Return the χ² values of the levels of regions of highest density: (n,).

    Beyond all draws, a value grows as that of a normal does, by 2 for each nat of its density.
    """
    answer: Any = rows.answer
    draws = max(FEWEST_DRAWS, min(MOST_DRAWS, ALL_DRAWS // max(len(rows), 1)))
    found = answer.nonconformity(rows.with_gaps, rows.missing, samples=draws)
    above = np.minimum(found, 1.0) * draws
    outside = 1.0 - (above + 0.5) / (draws + 1.0)
    chdtri = require("scipy.special", "diagnose").chdtri
    count = rows.count
    squares = chdtri(np.maximum(count, 1.0), outside) + 2.0 * np.maximum(found - 1.0, 0.0)
    return np.where(count > 0, squares, 0.0)


def _rosenblatt(rows: Observations) -> Array:
    """Return Φ⁻¹ F(yⱼ | y₁ … yⱼ₋₁) of each target: (n, d).

    Source: Rosenblatt, "Remarks on a multivariate transformation", Annals of Mathematical
    Statistics 23 (1952).
    """
    n, d = rows.y.shape
    found = np.empty((n, d))
    for j in range(d if n else 0):
        answer: Any = rows.answer.marginal(np.arange(j + 1))
        if j:
            answer = answer.condition({k: rows.y[:, k] for k in range(j)})
        found[:, j] = _normal_score(answer.marginal_cdf(rows.y[:, j : j + 1])[:, 0])
    return found


def _normal_score(p: Array) -> Array:
    inside = np.clip(p, np.finfo(np.float64).tiny, 1.0 - np.finfo(np.float64).epsneg)
    return np.asarray(require("scipy.special", "diagnose").ndtri(inside))
