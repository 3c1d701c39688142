"""Means and covariances of training targets, in float64, for `MultivariateNormalHead.adapt`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_mvn._core.fences import described
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.covariances.target_summary import TargetSummary

__all__ = ["Moments", "estimate"]

STDDEV_FLOOR = 1e-6
"""Smallest standard deviation relative to |mean|; below it, float32 cannot distinguish values."""

SMALLEST_STDDEV = 1e-33
"""Smallest standard deviation.

float32 ends at 1e-38, and scales may fall to a hundred-thousandth of the adapted scale.
"""

EIGENVALUE_FLOOR = 1e-6
"""Smallest eigenvalue of the correlation matrix; perfectly collinear targets get this value."""

GAPS_EIGENVALUE = 1e-2
"""Smallest eigenvalue of the correlation matrix if values are missing.

Correlations from different rows can contradict each other; if so, all are shrunk toward 0. Initial
directions of almost no variance, which are artifacts, would be hard to unlearn.
"""


class Moments(NamedTuple):
    """Moments from `estimate`: means, standard deviations, and a covariance or directions."""

    mean: Array
    """(d,)"""
    stddev: Array
    """(d,), positive."""
    covariance: Array | None
    """(d, d), positive definite; None if it was not requested."""
    rows: int
    """The number of observed rows of the target with the fewest missing values."""
    directions: Array | None = None
    """(d, p), F with correlation ≈ F Fᵀ off the diagonal, in place of the covariance."""
    sample: Array | None = None
    """(m, d), an even sample of the rows, NaN where missing; all of them if they are few."""

    def dense(self) -> Array:
        """Return the covariance (d, d), if necessary from standard deviations and directions."""
        if self.covariance is not None:
            return self.covariance
        correlation = np.zeros((len(self.stddev),) * 2)
        if self.directions is not None:
            correlation = self.directions @ self.directions.T
        np.fill_diagonal(correlation, 1.0)
        return self.stddev[:, None] * correlation * self.stddev[None, :]

    def of(self, targets: list[int]) -> Moments:
        """Return the moments of a subset of the targets, given by their indices."""
        sigma, f = self.covariance, self.directions
        return Moments(
            self.mean[targets],
            self.stddev[targets],
            None if sigma is None else sigma[np.ix_(targets, targets)],
            self.rows,
            None if f is None else f[targets],
        )


def estimate(
    data: Any,
    event_size: int,
    target_names: Sequence[str] | None = None,
    rank: int | None = None,
) -> Moments:
    """Estimate the moments of y, with NaN for missing values.

    Args:
        data: array or tensor (..., d), or a dataset or iterable of batches: of y, of (x, y), or of
            (x, y, sample_weight) as `fit` takes them (weights are not used); or a `TargetSummary`
            of them, with this rank.
        event_size: int, number of targets d.
        target_names: names of the targets, for error messages and warnings.
        rank: None measures the covariance, in O(d²) memory. An int measures standard deviations
            and this many leading directions of the correlation matrix (0 for none), in O(d rank)
            memory.

    Raises:
        ValueError: the number of targets is not d, values are infinite, or a target has fewer than
            two observed values; or a summary is of another rank.

    Warns:
        UserWarning: there are constant targets, or collinear ones if the covariance is measured;
            the message names them, and they get the floors of this module. Or single values are
            far from all others (`_core/fences.py`); they are treated as missing.

    """
    names = target_names_of(target_names, event_size)
    if isinstance(data, TargetSummary):
        summary = data.checked(event_size, rank)
    else:
        summary = TargetSummary(event_size, rank).update(data)
    rows, measured = summary.sample, summary.measured
    found = summary.fences()
    if found.any:
        warnings.warn(
            f"adapt: single values are far from all others, and do not count here. The loss still "
            "sees them: set them to NaN, with missing='marginalize', if they are no values. "
            f"{described(summary.with_extremes(), found, names, summary.place)}.",
            stacklevel=3,
        )
        rows = found.regular(rows)
        regular = TargetSummary(event_size, rank).update([rows])
        measured = regular.measured._replace(rows=measured.rows)
    seen, mean, variance = measured.seen, measured.mean, measured.variance
    if (seen < 2).any():
        few = ", ".join(f"{names[j]} ({int(seen[j])})" for j in np.flatnonzero(seen < 2))
        raise ValueError(
            f"adapt needs at least 2 observed rows of every target, but received fewer for: {few}. "
            "Pass all training targets, y_train."
        )
    stddev, constant = _floor_stddev(mean, np.sqrt(variance), names)
    if measured.correlation is None:
        directions = measured.directions / stddev[:, None]
        directions[constant] = 0.0
        return Moments(mean, stddev, None, measured.rows, directions, rows)
    correlation = measured.correlation
    correlation[constant, :] = 0.0
    correlation[:, constant] = 0.0
    np.fill_diagonal(correlation, 1.0)
    if measured.with_gaps:
        correlation = _made_consistent(correlation)
    correlation = _floor_eigenvalues(correlation, names, rows=int(seen.min()))
    sigma = stddev[:, None] * correlation * stddev[None, :]
    return Moments(mean, stddev, sigma, measured.rows, sample=rows)


def _made_consistent(correlation: Array) -> Array:
    """Return (1 − λ) correlation + λ I, with the smallest λ for eigenvalues ≥ GAPS_EIGENVALUE."""
    smallest = float(np.linalg.eigvalsh(correlation)[0])
    share = (GAPS_EIGENVALUE - smallest) / (1.0 - smallest) if smallest < GAPS_EIGENVALUE else 0.0
    return (1.0 - share) * correlation + share * np.eye(len(correlation))


def _floor_stddev(mean: Array, stddev: Array, names: list[str]) -> tuple[Array, Array]:
    floor = np.where(mean == 0.0, 0.0, STDDEV_FLOOR * np.abs(mean))
    constant = (stddev <= floor) | (stddev == 0.0)
    tiny = (stddev < SMALLEST_STDDEV) & ~constant
    if tiny.any():
        which = ", ".join(names[j] for j in np.flatnonzero(tiny))
        raise ValueError(
            f"adapt: the standard deviations of these targets are below {SMALLEST_STDDEV:g}, too "
            f"small for float32: {which}. Rescale them."
        )
    if constant.any():
        which = ", ".join(names[j] for j in np.flatnonzero(constant))
        warnings.warn(
            f"adapt: these targets are constant (in float32 precision): {which}. Their unit is set "
            f"to {STDDEV_FLOOR:g} |mean|, or to 1 if the mean is 0. Consider dropping them.",
            stacklevel=4,
        )
    replacement = np.where(floor > 0.0, floor, 1.0)
    return np.where(constant, replacement, stddev), constant


def _floor_eigenvalues(correlation: Array, names: list[str], rows: int) -> Array:
    eigenvalues, vectors = np.linalg.eigh(correlation)
    if eigenvalues[0] >= EIGENVALUE_FLOOR:
        return correlation
    below = eigenvalues < EIGENVALUE_FLOOR
    involved = (vectors[:, below] ** 2).sum(axis=1) > 0.01
    which = ", ".join(names[j] for j in np.flatnonzero(involved))
    reason = (
        f"{rows} rows are too few to separate {len(names)} targets"
        if rows <= len(names)
        else "one is a copy, a sum or a difference of others, or too many values are missing"
    )
    warnings.warn(
        f"adapt: these targets are perfectly collinear: {which} ({reason}). Eigenvalues of their "
        f"correlation matrix are raised to {EIGENVALUE_FLOOR:g}. Consider dropping one.",
        stacklevel=4,
    )
    raised = (vectors * np.maximum(eigenvalues, EIGENVALUE_FLOOR)) @ vectors.T
    root = np.sqrt(np.diagonal(raised))
    return raised / root[:, None] / root[None, :]
