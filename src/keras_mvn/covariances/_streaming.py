"""Means, variances and leading directions of covariance in one pass, without a d × d matrix.

Incremental principal components: the directions found so far, scaled by what they explain, are
stacked on the next rows, centered, and on the step that the mean made; of that matrix the leading
directions are kept. Exact while no more than `rank` directions have variance.

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
"""Rows taken at once: the cost of a step is that of a Gram matrix of CHUNK + rank rows."""


class StreamingMoments:
    """Moments of the rows given to `update`, NaN read as "not observed".

    Args:
        event_size: d.
        rank: number of directions; 0 for none.

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
        """Take the rows (n, d) of every batch."""
        for y in batches:
            for start in range(0, len(y), CHUNK):
                self._update(y[start : start + CHUNK])

    def _update(self, y: Array) -> None:
        observed = ~np.isnan(y)
        seen = observed.sum(axis=0)
        safe = np.maximum(seen, 1)
        # From the mean so far where there is one: sums of the values themselves would cancel.
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
        self._unit = np.where(self._unit > 0.0, self._unit, spread)  # of the first rows that vary
        unit = np.where(self._unit > 0.0, self._unit, 1.0)
        moved = step * np.sqrt(self._rows * rows / (self._rows + rows))
        stacked = np.vstack([self._basis, centered / unit, moved[None, :] / unit])
        _, vectors = np.linalg.eigh(stacked @ stacked.T)
        self._basis = vectors[:, : -self._rank - 1 : -1].T @ stacked

    @property
    def variance(self) -> Array:
        """Of each target: (d,)."""
        return self._squares / np.maximum(self.count, 1)

    @property
    def directions(self) -> Array:
        """F (d, p), in the units of y, with covariance ≈ F Fᵀ off the diagonal.

        Missing values were read as the mean, which makes covariances too small by the shares
        observed: that is made good, which is right where values are missing at random.
        """
        share = np.maximum(self.count, 1) / max(self._rows, 1)
        scaled = self._basis.T * (self._unit / share)[:, None]
        return np.asarray(scaled / np.sqrt(max(self._rows, 1)))
