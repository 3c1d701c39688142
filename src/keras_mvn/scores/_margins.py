"""Scores of each target separately."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from keras_mvn._core.checks import probability
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions._parts import Part
from keras_mvn.distributions.base import Distribution
from keras_mvn.scores._expectations import DRAWS, MOST_PARTS, averaged
from keras_mvn.scores._observations import Observations

__all__ = ["crps", "crps_of", "interval_of", "interval_score"]


def crps(answer: Distribution, y: Any, missing: str = "raise") -> Array:
    """Return the continuous ranked probability score of each target, in units of y: (..., d).

    ∫ (F(x) − 1{y ≤ x})² dx = `E |X − y| − ½ E |X − X'|`; for a normal, this is
    σ [w (2Φ(w) − 1) + 2φ(w) − 1/√π], w = (y − μ)/σ. Strictly proper for the marginals; it does not
    depend on how targets vary together. It grows like the absolute error. A Student's t is averaged
    over the variable that scales its normal, a mixture over its components and their pairs; of more
    than 8 components, the second term is estimated by 1000 draws, as both terms are for targets
    with a transform.

    Args:
        answer: predicted distributions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        missing: "marginalize" treats NaN in y as missing: the result is NaN there. By default NaN
            is an error.

    Raises:
        ValueError: the last axis is not d, batch axes do not fit, or values are not finite.
        ImportError: SciPy is not installed.

    Source: Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA
    102 (2007).

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.5], [0.5, 4.0]])
    >>> crps(normal, [0.0, 0.0]).round(4)  # σ (√2 − 1)/√π
    array([0.2337, 0.4674])

    """
    return Observations.read(answer, y, missing).score(crps_of)


def crps_of(rows: Observations) -> Array:
    """Return the CRPS, (n, d), NaN where y is missing."""
    parts = rows.answer.parts()
    if parts is None:
        draws = rows.answer.sample(DRAWS, 0)
        near = np.abs(draws - rows.y).mean(axis=0)
        return rows.of_observed(near - 0.5 * _drawn_spread(draws), np.nan)
    near, spread = np.zeros(rows.y.shape), np.zeros(rows.y.shape)
    many = len(parts) > MOST_PARTS
    if many:
        blocks = rows.parts(DRAWS * rows.event_size)
        spread = np.concatenate([_drawn_spread(one.answer.sample(DRAWS, 0)) for one in blocks])
    for i, part in enumerate(parts):
        weight, variance = np.exp(part.log_weight)[..., None], part.gaussian.variance()
        gap = rows.y - part.gaussian.mean
        near += weight * averaged(part.law.nodes(), functools.partial(_at_node, gap, variance))
        if many:
            continue
        own = part.law.spread_factor()[..., None] * np.sqrt(variance * 2.0 / math.pi)
        spread += weight**2 * own
        for other in parts[:i]:
            both = 2.0 * weight * np.exp(other.log_weight)[..., None]
            spread += both * _between(part, other)
    return rows.of_observed(near - 0.5 * spread, np.nan)


def _drawn_spread(draws: Array) -> Array:
    """Estimate E |X − X'| by all pairs of the draws, (draws, n, d)."""
    count = len(draws)
    ranks = 2.0 * np.arange(count) - (count - 1.0)
    total = np.tensordot(ranks, np.sort(draws, axis=0), axes=1)
    return np.asarray(total * 2.0 / (count * (count - 1.0)))


def _at_node(gap: Array, variance: Array, v: Array) -> Array:
    return _mean(gap, v * variance)


def _mean(mean: Array, variance: Array) -> Array:
    """Return E |X| for X ~ N(mean, variance)."""
    sigma = np.sqrt(variance)
    w = mean / sigma
    erf = require("scipy.special", "crps").erf
    density = np.exp(-0.5 * w**2) * math.sqrt(2.0 / math.pi)
    return np.asarray(sigma * (w * erf(w / math.sqrt(2.0)) + density))


def _between(part: Part, other: Part) -> Array:
    """Return E |X − X'| for independent draws from two parts: (n, d)."""
    gap = part.gaussian.mean - other.gaussian.mean
    one, two, inner = part.gaussian.variance(), other.gaussian.variance(), other.law.nodes()
    return averaged(
        part.law.nodes(),
        lambda v: averaged(inner, lambda u: _mean(gap, v * one + u * two)),
    )


def interval_score(
    answer: Distribution, y: Any, level: float = 0.9, missing: str = "raise"
) -> Array:
    """Return the Winkler score of each target's central interval [l, u], in units of y: (..., d).

    (u − l) + (2/α) (l − y)₊ + (2/α) (y − u)₊, α = 1 − level: the width, plus a penalty where y is
    outside. Proper for the two quantiles.

    Args:
        answer: predicted distributions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        level: float, probability of the interval.
        missing: as in `crps`.

    Raises:
        ValueError: level is not between 0 and 1; or as for `crps`.

    Source: Winkler, "A decision-theoretic approach to interval estimation", JASA 67 (1972).

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([0.0], covariance=[[1.0]])
    >>> interval_score(normal, [[0.0], [2.0]], level=0.9).round(3)  # 3.290 + 20 · (2 − 1.645)
    array([[ 3.29 ],
           [10.393]])

    """
    p = probability(level, "level")
    return Observations.read(answer, y, missing).score(lambda rows: interval_of(rows, p))


def interval_of(rows: Observations, level: float) -> Array:
    """Return the interval score, (n, d), NaN where y is missing."""
    lower, upper = rows.answer.interval(level)
    outside = np.maximum(np.maximum(lower - rows.y, rows.y - upper), 0.0)
    return rows.of_observed(upper - lower + 2.0 / (1.0 - level) * outside, np.nan)
