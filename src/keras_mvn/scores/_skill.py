"""Comparisons of two predictions of the same rows, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import as_numpy, group_labels, probability, whole
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["Comparison", "mean_difference", "skill_score"]

_BLOCK = 4_000_000
"""Number of values drawn at a time."""


@final
@dataclass(frozen=True)
class Comparison:
    """A number, and the interval that contains it with confidence `level`."""

    value: float
    lower: float
    upper: float
    level: float
    standard_error: float


def skill_score(
    score: Any,
    reference: Any,
    *,
    groups: Any = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: Any = 0,
    method: str = "percentile",
) -> Comparison:
    """Return 1 − mean(score)/mean(reference): 1 is perfect, 0 is no better than the reference.

    For scores whose best value is 0: energy, variogram and interval scores, CRPS, squared and
    absolute errors. A log score has no such zero, and its ratio changes with the units of y; use
    `mean_difference` for it. Rows are paired: if a row is hard for both predictions, this does not
    widen the interval.

    Args:
        score: one number ≥ 0 per row, NaN where y is missing.
        reference: the scores of the other predictions, for the same rows.
        groups: one label per row. Rows with the same label are resampled together, because they
            depend on each other: the same patient, station, or segment of a time series.
        level: float, confidence of the interval.
        n_resamples: int, number of bootstrap resamples.
        seed: an integer or `numpy.random.Generator`.
        method: "percentile", "basic" or "BCa", as in `scipy.stats.bootstrap`. BCa is better for
            a few hundred rows or groups; its cost grows with the square of their number.

    Raises:
        ValueError: shapes differ; scores are infinite, negative, or NaN in only one of the two;
            there are fewer than two rows or groups; or the reference is 0 throughout.
        ImportError: SciPy is not installed.

    Source: Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA
    102 (2007); Efron & Tibshirani, "An introduction to the bootstrap", 1993.

    >>> import numpy as np
    >>> reference = np.random.default_rng(0).gamma(2.0, size=400)
    >>> found = skill_score(0.8 * reference, reference)
    >>> round(found.value, 4), found.lower <= found.value <= found.upper
    (0.2, True)

    """
    a, b, n = _grouped(score, reference, groups)
    if (a < 0).any() or (b < 0).any():
        raise ValueError(
            "skill_score: some scores are negative, so 0 is not the best value and their ratio is "
            "meaningless. For log scores, use mean_difference."
        )
    if not b.any():
        raise ValueError("skill_score: the reference is 0 in every row; nothing can be better.")
    return _bootstrap(_skill, (a, b, n), level, n_resamples, seed, method)


def mean_difference(
    score: Any,
    reference: Any,
    *,
    groups: Any = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: Any = 0,
    method: str = "percentile",
) -> Comparison:
    """Return mean(score − reference), in units of the score; negative means a better score.

    For any score; for log scores, it is the mean log-likelihood ratio in nats, whatever the units
    of y. Rows are paired.

    Arguments are those of `skill_score`; scores may be negative.

    Raises:
        ValueError: shapes differ; scores are infinite, or NaN in only one of the two; or there are
            fewer than two rows or groups.
        ImportError: SciPy is not installed.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> hard = 100.0 * rng.normal(size=400)
    >>> found = mean_difference(hard + rng.normal(-1.0, size=400), hard)
    >>> found.lower < -1.0 < found.upper, round(found.standard_error, 2)
    (True, 0.05)

    """
    return _bootstrap(
        _difference, _grouped(score, reference, groups), level, n_resamples, seed, method
    )


def _skill(a: Array, b: Array, n: Array, axis: int = -1) -> Array:
    return np.asarray(1.0 - a.sum(axis=axis) / b.sum(axis=axis))


def _difference(a: Array, b: Array, n: Array, axis: int = -1) -> Array:
    return np.asarray((a.sum(axis=axis) - b.sum(axis=axis)) / n.sum(axis=axis))


def _grouped(score: Any, reference: Any, groups: Any) -> tuple[Array, Array, Array]:
    """Return sums of both scores and row counts for every group, or for every row if no groups."""
    a, b = (np.asarray(as_numpy(x), dtype=np.float64) for x in (score, reference))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"score has shape {a.shape} and reference {b.shape}; expected one number per row for "
            "both, for the same rows. Compare scores per target one target at a time."
        )
    labels = np.arange(len(a)) if groups is None else group_labels(groups, a.shape)
    there = ~np.isnan(a)
    if (there != ~np.isnan(b)).any() or np.isinf(a).any() or np.isinf(b).any():
        raise ValueError(
            "score and reference must be finite, or NaN (missing) in the same rows of both."
        )
    _, index = np.unique(labels[there], return_inverse=True)
    rows = np.ones(len(index))
    a, b, n = (np.bincount(index, weights=x).astype(np.float64) for x in (a[there], b[there], rows))
    if len(n) < 2:
        raise ValueError(f"score has {len(n)} rows or groups; an interval needs at least two.")
    return a, b, n


def _bootstrap(
    statistic: Callable[..., Array],
    sums: tuple[Array, Array, Array],
    level: float,
    n_resamples: int,
    seed: Any,
    method: str,
) -> Comparison:
    if method not in ("percentile", "basic", "BCa"):
        raise ValueError(f"method={method!r} must be 'percentile', 'basic' or 'BCa'.")
    confidence = probability(level, "level")
    found = require("scipy.stats", "the bootstrap").bootstrap(
        sums,
        statistic,
        n_resamples=whole(n_resamples, "n_resamples", "a number of resamples", 2),
        batch=max(1, _BLOCK // len(sums[0])),
        paired=True,
        vectorized=True,
        confidence_level=confidence,
        method=method,
        random_state=np.random.default_rng(seed),
    )
    lower, upper = map(float, found.confidence_interval)
    value = float(statistic(*sums))
    return Comparison(value, lower, upper, confidence, float(found.standard_error))
