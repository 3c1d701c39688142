"""Means, variances and leading directions of covariance in one pass, without a d × d matrix.

Incremental principal components: the directions found so far, scaled by their singular values, are
stacked with the next rows, centered, and with the change of the mean; the leading directions of
that matrix are kept. Exact while no more than `rank` directions have variance.

Source: Ross, Lim, Lin & Yang, "Incremental learning for robust visual tracking", Int. J. Comput.
Vision 77 (2008); Chan, Golub & LeVeque, "Algorithms for computing the sample variance", Am. Stat.
37 (1983).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["StreamingMoments"]

CHUNK = 256
"""Rows per step: the cost of a step is that of a Gram matrix of CHUNK + rank rows."""


class StreamingMoments:
    """Running moments of the rows given to `update_all`, with NaN for missing values.

    Args:
        event_size: int, number of targets d.
        rank: int, number of leading directions; 0 for none.

    """

    def __init__(self, event_size: int, rank: int) -> None:
        self.count = np.zeros(event_size)
        self.mean = np.zeros(event_size)
        self._squares = np.zeros(event_size)
        self._unit = np.zeros(event_size)
        self._rank = rank
        self._rows = 0
        self._basis = np.zeros((0, event_size))

    def update_all(self, batches: Iterator[Array]) -> None:
        """Add the rows (n, d) of every batch."""
        for y in batches:
            self.update(y)

    def update(self, y: Array) -> None:
        """Add rows (n, d)."""
        for start in range(0, len(y), CHUNK):
            self._update(y[start : start + CHUNK])

    def merge(self, other: StreamingMoments) -> None:
        """Add the rows that another one, of the same rank, was given."""
        both = (self.count > 0) & (other.count > 0)
        total = np.maximum(self.count + other.count, 1)
        step = np.where(both, other.mean - self.mean, 0.0)
        self._squares += other._squares + step**2 * self.count * other.count / total
        if self._rank and other._rows:
            self._unit = np.where(self._unit > 0.0, self._unit, other._unit)
            unit = np.where(self._unit > 0.0, self._unit, 1.0)
            moved = step * np.sqrt(self._rows * other._rows / (self._rows + other._rows))
            theirs = other._basis * other._unit / unit
            self._keep_leading(np.vstack([self._basis, theirs, moved[None, :] / unit]))
        here = np.where(self.count > 0, self.mean, other.mean)
        self.mean = here + step * other.count / total
        self.count += other.count
        self._rows += other._rows

    def _update(self, y: Array) -> None:
        observed = ~np.isnan(y)
        seen = observed.sum(axis=0)
        safe = np.maximum(seen, 1)
        # Relative to the mean so far, if there is one: sums of the raw values would cancel.
        known = self.count > 0
        first = np.where(observed, y, 0.0).sum(axis=0) / safe
        shift = np.where(known, self.mean, first)
        centered = np.where(observed, y - shift, 0.0)
        step = centered.sum(axis=0) / safe
        centered = np.where(observed, centered - step, 0.0)
        total = np.maximum(self.count + seen, 1)
        self._squares += (centered**2).sum(axis=0) + np.where(
            known, step**2 * self.count * seen / total, 0.0
        )
        if self._rank:
            self._turn(centered, np.where(known, step, 0.0), len(y))
        self.mean = shift + step * seen / np.where(known, total, safe)
        self.count += seen
        self._rows += len(y)

    def _turn(self, centered: Array, step: Array, rows: int) -> None:
        spread = np.sqrt((centered**2).mean(axis=0))
        self._unit = np.where(self._unit > 0.0, self._unit, spread)  # from the first varying rows
        unit = np.where(self._unit > 0.0, self._unit, 1.0)
        moved = step * np.sqrt(self._rows * rows / (self._rows + rows))
        self._keep_leading(np.vstack([self._basis, centered / unit, moved[None, :] / unit]))

    def _keep_leading(self, stacked: Array) -> None:
        _, vectors = np.linalg.eigh(stacked @ stacked.T)
        self._basis = vectors[:, : -self._rank - 1 : -1].T @ stacked

    @property
    def variance(self) -> Array:
        """The variance of each target: (d,)."""
        return self._squares / np.maximum(self.count, 1)

    @property
    def directions(self) -> Array:
        """The matrix F (d, p), in the units of y, with covariance ≈ F Fᵀ off the diagonal.

        Missing values were replaced by the mean, which makes covariances too small by the observed
        fractions. This is corrected, which is right if values are missing at random.
        """
        share = np.maximum(self.count, 1) / max(self._rows, 1)
        scaled = self._basis.T * (self._unit / share)[:, None]
        return np.asarray(scaled / np.sqrt(max(self._rows, 1)))
