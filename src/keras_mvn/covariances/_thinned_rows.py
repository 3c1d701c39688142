"""An evenly thinned sample of the rows of a stream, of bounded size."""

from __future__ import annotations

from typing import final

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["ThinnedRows"]

MOST_NUMBERS = 4_000_000
"""Numbers that are kept, at most: 32 MB."""

FEWEST_ROWS = 1000
"""Rows that are kept whatever their width."""


@final
class ThinnedRows:
    """Every row while there are few, later every second, fourth, eighth, and so on.

    The sample does not depend on how rows are divided into batches, and is not random: sorted rows
    are sampled evenly.

    Args:
        event_size: int, number of columns.

    Attributes:
        seen: number of rows so far.
        step: every how many of them are kept.

    """

    def __init__(self, event_size: int) -> None:
        self._most = max(FEWEST_ROWS, MOST_NUMBERS // event_size)
        self._kept: list[Array] = []
        self._count, self.seen, self.step = 0, 0, 1
        self._empty = np.zeros((0, event_size))

    def update(self, rows: Array) -> None:
        """Add rows (n, columns)."""
        kept = rows[-self.seen % self.step :: self.step]
        self.seen += len(rows)
        self._keep(kept.copy())

    def merge(self, other: ThinnedRows) -> None:
        """Add the rows that another one was given, as densely sampled as those here."""
        step = max(self.step, other.step)
        mine, theirs = self.rows[:: step // self.step], other.rows[:: step // other.step]
        self._kept, self._count, self.step = [mine], len(mine), step
        self.seen += other.seen
        self._keep(theirs)

    def _keep(self, rows: Array) -> None:
        self._kept.append(rows)
        self._count += len(rows)
        while self._count > self._most:
            thinner = self.rows[::2]
            self._kept, self._count, self.step = [thinner], len(thinner), 2 * self.step

    @property
    def rows(self) -> Array:
        """The sample so far: (m, columns)."""
        return np.concatenate([self._empty, *self._kept])
