"""Hypothesis tests of calibration, each exact or nearly so for z ~ N(0, I)."""

from __future__ import annotations

import functools

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["bias", "covariance", "holm", "radial", "size", "tails", "two_sided_chi_square"]


def two_sided_chi_square(total: Array | float, dof: Array | float) -> Array:
    """Return the two-sided p-value of a χ²_dof statistic."""
    special = require("scipy.special", "diagnose")
    tails = np.minimum(special.chdtr(dof, total), special.chdtrc(dof, total))
    return np.minimum(2.0 * tails, 1.0)


def size(squares: Array, dof: Array) -> float:
    """Test whether regions are too small or too large on average: Σ q is χ² with Σ dof."""
    return float(two_sided_chi_square(squares.sum(), dof.sum()))


def radial(pit: Array) -> float:
    """Test whether the χ² PIT values are uniform (Kolmogorov–Smirnov)."""
    return float(require("scipy.stats", "diagnose").kstest(pit, "uniform").pvalue)


def tails(squares: Array, dof: Array) -> float:
    """Test whether distances have the right spread, regardless of their size; detects heavy tails.

    v = Φ⁻¹(PIT) is standard normal (Berkowitz, "Testing density forecasts, with applications to
    risk management", Journal of Business & Economic Statistics 19 (2001)); here it is
    applied to q divided by the squared temperature t² = Σ q/Σ dof, so that a wrong size does not
    count. Its variance is then distributed as χ²_ν/ν with ν = n/(1 − c²/4 mean(dof)) in the limit
    of many rows, where c is the mean covariance of v² and q. NaN for a single row.
    """
    n = len(squares)
    if n < 2 or not squares.any():
        return float("nan")
    v = _normal_score(squares * (dof.sum() / squares.sum()), dof)
    kinds, counts = np.unique(dof, return_counts=True)
    c = sum(count * _covariance_with_score(kind) for kind, count in zip(kinds, counts, strict=True))
    effective = n / (1.0 - (c / n) ** 2 / (4.0 * dof.mean()))
    return float(two_sided_chi_square(effective * np.var(v, ddof=1), effective))


def _normal_score(squares: Array, dof: Array) -> Array:
    """Return Φ⁻¹ of the χ² probability, from the nearer tail because 1 − p would round to 1."""
    special = require("scipy.special", "diagnose")
    lower, upper = special.chdtr(dof, squares), special.chdtrc(dof, squares)
    v = np.where(lower < upper, special.ndtri(lower), -special.ndtri(upper))
    return np.clip(v, -_FARTHEST, _FARTHEST)


@functools.lru_cache(maxsize=256)
def _covariance_with_score(dof: int) -> float:
    """Return Cov(v², q) for q ~ χ²_dof and its normal score v, by Gauss–Hermite quadrature."""
    special = require("scipy.special", "diagnose")
    v, weight = np.polynomial.hermite_e.hermegauss(64)
    q = special.chdtri(dof, special.ndtr(-v))
    return float(np.sum(weight * v**2 * (q - dof)) / weight.sum())


_FARTHEST = 40.0  # standard deviations; the probability beyond underflows float64


def bias(z: Array) -> float:
    """Test whether E z = 0, for any covariance (Hotelling's T²); NaN for n ≤ d rows."""
    n, d = z.shape
    if n <= d:
        return float("nan")
    mean = z.mean(axis=0)
    factor = np.asarray(np.linalg.qr((z - mean) / np.sqrt(n - 1), mode="r"))
    if np.abs(np.diagonal(factor)).min() == 0.0:
        return float("nan")
    squared = n * np.sum(np.linalg.solve(factor.T, mean) ** 2)
    special = require("scipy.special", "diagnose")
    return float(special.fdtrc(d, n - d, squared * (n - d) / (d * (n - 1))))


def covariance(z: Array) -> float:
    """Test whether E z zᵀ = I, given mean 0, by the likelihood ratio; NaN for n ≤ d rows.

    The statistic is n (tr M − log det M − d) with Bartlett's factor
    1 − (2 d + 1 − 2/(d + 1))/(6 n), χ² with d (d + 1)/2 degrees of freedom (Anderson, "An
    introduction to multivariate statistical analysis", 2003, section 10.8).
    """
    n, d = z.shape
    if n <= d:
        return float("nan")
    singular = np.linalg.svd(z / np.sqrt(n), compute_uv=False)
    if singular.min() == 0.0:
        return 0.0
    ratio = n * np.sum(singular**2 - 2.0 * np.log(singular) - 1.0)
    bartlett = 1.0 - (2 * d + 1 - 2.0 / (d + 1)) / (6.0 * n)
    special = require("scipy.special", "diagnose")
    return float(special.chdtrc(d * (d + 1) / 2, bartlett * ratio))


def holm(p_values: Array) -> Array:
    """Adjust the p-values of m tests (Holm 1979): any falls below α with probability at most α.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted
