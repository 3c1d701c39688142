"""Scores of each target separately."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from keras_mvn._core.checks import probability
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.scores._observations import Observations

__all__ = ["crps", "crps_of", "interval_of", "interval_score"]


def crps(normal: MultivariateNormal, y: Any, missing: str = "raise") -> Array:
    """Return the continuous ranked probability score of each target, in units of y: (..., d).

    ∫ (F(x) − 1{y ≤ x})² dx = σ [w (2Φ(w) − 1) + 2φ(w) − 1/√π], w = (y − μ)/σ. Strictly proper for
    the marginals; it does not depend on how targets vary together. It grows like the absolute
    error.

    Args:
        normal: `MultivariateNormal`, predictions with batch shape (...).
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
    return Observations.read(normal, y, missing).score(crps_of)


def crps_of(rows: Observations) -> Array:
    """Return the CRPS, (n, d), NaN where y is missing."""
    sigma = rows.stddev
    w = rows.residual / sigma
    erf = require("scipy.special", "crps").erf
    density = np.exp(-0.5 * w**2) * math.sqrt(2.0 / math.pi)
    score = sigma * (w * erf(w / math.sqrt(2.0)) + density - 1.0 / math.sqrt(math.pi))
    return rows.of_observed(score, np.nan)


def interval_score(
    normal: MultivariateNormal, y: Any, level: float = 0.9, missing: str = "raise"
) -> Array:
    """Return the Winkler score of each target's central interval [l, u], in units of y: (..., d).

    (u − l) + (2/α) (l − y)₊ + (2/α) (y − u)₊, α = 1 − level: the width, plus a penalty where y is
    outside. Proper for the two quantiles.

    Args:
        normal: `MultivariateNormal`, predictions with batch shape (...).
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
    return Observations.read(normal, y, missing).score(lambda rows: interval_of(rows, p))


def interval_of(rows: Observations, level: float) -> Array:
    """Return the interval score, (n, d), NaN where y is missing."""
    reach = NormalDist().inv_cdf(0.5 * (1.0 + level)) * rows.stddev
    outside = np.maximum(np.abs(rows.residual) - reach, 0.0)
    return rows.of_observed(2.0 * reach + 2.0 / (1.0 - level) * outside, np.nan)
