"""Means over rows and their standard errors, computed from the influence of each row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["Estimate", "mean_of", "root_of", "skill_of", "standard_error", "uniformity"]


class Estimate(NamedTuple):
    """Statistics of a sample of n rows, and the influence of each row on them.

    The influence of row i is n times the change of the statistic with the weight of the row, so
    the statistic's error is the mean of n independent influences. Differences and ratios of paired
    statistics use the differences of influences, so one rule gives all standard errors.
    """

    value: Array
    """(...)"""
    influence: Array
    """(n, ...), with mean 0."""


def mean_of(total: Array, count: Array) -> Estimate:
    """Return Σ total / Σ count, (n, ...) each, so that rows count by their observed values."""
    n, weight = len(total), count.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # never observed: NaN
        value = np.asarray(total.sum(axis=0) / weight)
        return Estimate(value, (total - value * count) * (n / weight))


def root_of(mean: Estimate) -> Estimate:
    """Return √mean; a mean of 0 has error 0."""
    value = np.sqrt(mean.value)
    return Estimate(value, 0.5 * mean.influence / np.where(value == 0, 1.0, value))


def skill_of(score: Estimate, reference: Estimate) -> Estimate:
    """Return the skill 1 − score/reference, for the same rows."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = score.value / reference.value
        slope = (ratio * reference.influence - score.influence) / reference.value
    return Estimate(1.0 - ratio, slope)


def uniformity(u: Array) -> Estimate:
    """Return ∫₀¹ `|F(p) − p|` dp for the empirical distribution F of u, (n,) numbers in [0, 1].

    This is the mean error over all levels at once, exact and without bins; at most ½. Even uniform
    numbers give about 0.31/√n, which the standard error, meant for numbers that are not uniform,
    does not show.

    >>> uniformity(np.array([1.0, 1.0])).value  # no level but the last holds anything
    array(0.5)
    """
    n, order = len(u), np.argsort(u)
    steps = np.concatenate([[0.0], u[order], [1.0]])
    f = np.arange(n + 1) / n  # between two steps
    low, high = f - steps[:-1], f - steps[1:]
    value = 0.5 * (low * np.abs(low) - high * np.abs(high)).sum()
    sign = np.abs(low) - np.abs(high)  # ∫ sign(F − p) dp between two steps
    influence = np.empty(n)
    influence[order] = np.cumsum(sign[::-1])[::-1][1:]  # and from u to 1
    return Estimate(np.asarray(value), influence - influence.mean())


def standard_error(estimate: Estimate) -> Array:
    """Return √(Σ influence² / (n (n − 1))): (...); NaN for one row.

    For a share p, this is the binomial √(p (1 − p)/(n − 1)).
    """
    n = len(estimate.influence)
    if n < 2:
        return np.full(estimate.value.shape, np.nan)
    error = np.sqrt((estimate.influence**2).sum(axis=0) / (n * (n - 1.0)))
    rounding = np.finfo(np.float64).eps * np.abs(estimate.value)
    return np.where(error <= rounding, 0.0, error)  # 0 if the value is the same in all rows
