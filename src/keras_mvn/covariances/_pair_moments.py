"""Means, variances and correlations of targets with gaps, from sums over pairs of them."""

from __future__ import annotations

import warnings

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["PairMoments"]


class PairMoments:
    """Means and variances from the rows of each target, correlations from the rows of each pair.

    The standard deviations in a correlation come from the same rows as the covariance; otherwise
    the correlation could exceed 1.
    """

    def __init__(self, d: int) -> None:
        self._count, self._product = np.zeros((d, d)), np.zeros((d, d))
        self._sums, self._squares = np.zeros((d, d)), np.zeros((d, d))
        self._shift: Array | None = None

    def update(self, y: Array) -> None:
        """Add rows (n, d)."""
        if not len(y):
            return
        observed = ~np.isnan(y)
        if self._shift is None:
            # Differences from a typical value: with squares of the raw values, digits would cancel.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a target missing in batch one
                self._shift = np.nan_to_num(np.nanmean(y, axis=0))
        mask = observed.astype(np.float64)
        centered = np.where(observed, y - self._shift, 0.0)
        self._count += mask.T @ mask
        self._product += centered.T @ centered
        self._sums += centered.T @ mask  # [i, j]: of target i over rows that also have target j
        self._squares += (centered * centered).T @ mask

    def merge(self, other: PairMoments) -> None:
        """Add the rows that another one was given."""
        if other._shift is None:
            return
        if self._shift is None:
            self._shift = other._shift
        by = other._shift - self._shift  # their values, relative to the typical value here
        sums, count = other._sums, other._count
        self._product += (
            other._product + by[:, None] * sums.T + by * sums + np.outer(by, by) * count
        )
        self._squares += other._squares + 2.0 * by[:, None] * sums + (by**2)[:, None] * count
        self._sums += sums + by[:, None] * count
        self._count += count

    @property
    def seen(self) -> Array:
        """The number of rows in which each target was observed: (d,)."""
        return np.diagonal(self._count)

    @property
    def with_gaps(self) -> bool:
        """Whether any pair of targets was not always observed together."""
        return bool((self._count < self._count.max(initial=0.0)).any())

    @property
    def mean(self) -> Array:
        """The mean of each target: (d,)."""
        shift = 0.0 if self._shift is None else self._shift
        return np.asarray(np.diagonal(self._sums) / np.maximum(self.seen, 1.0) + shift)

    @property
    def variance(self) -> Array:
        """The variance of each target: (d,)."""
        return np.diagonal(self._variances())

    def _variances(self) -> Array:
        """Return at [i, j] the variance of target i over the rows that also have target j."""
        safe = np.maximum(self._count, 1.0)
        return np.maximum(self._squares / safe - (self._sums / safe) ** 2, 0.0)

    @property
    def correlation(self) -> Array:
        """The correlation matrix (d, d), with 0 for pairs that were never observed together."""
        safe = np.maximum(self._count, 1.0)
        covariance = self._product / safe - (self._sums / safe) * (self._sums.T / safe)
        root = np.sqrt(self._variances())
        size = root * root.T
        known = (self._count > 1) & (size > 0)
        return np.clip(np.where(known, covariance / np.where(known, size, 1.0), 0.0), -1.0, 1.0)
