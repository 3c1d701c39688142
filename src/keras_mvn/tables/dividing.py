"""Which rows of a table train, stop, calibrate and test, and which folds take turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from keras_mvn.tables.splitting import (
    Split,
    by_groups,
    by_time,
    random_split,
    shares,
    time_blocks,
)

__all__ = ["Divided", "Division"]


class Divided(NamedTuple):
    """The parts of a table, and how its training rows are folded."""

    split: Split
    folds: int
    """Number of folds for cross-fitting; 0 for none."""
    together: np.ndarray | None
    """Labels of the rows: equal ones are in the same fold; None for folds at random."""


@final
@dataclass(frozen=True)
class Division:
    """How rows are to be divided."""

    calibrated: bool
    folds: int
    """Number of folds for cross-fitting; 0 for rows that are held out."""
    fold_up_to: float
    """Maximum number of rows, those for testing aside, at which there are folds."""
    by_time: bool
    """Whether `order` holds times; otherwise it holds groups."""
    seed: int

    def of(self, rows: int, order: np.ndarray | None) -> Divided:
        """Divide rows.

        Args:
            rows: their number.
            order: their times or the codes of their groups; None for rows at random.

        Raises:
            TableError: there are too few groups or times.

        """
        folds = self._folds(rows, order)
        split = self._split(rows, order, shares(self.calibrated, folds > 0))
        if not folds or order is None or not self.by_time:
            return Divided(split, folds, order)
        return Divided(split, folds, time_blocks(order, split.train, folds))

    def _folds(self, rows: int, order: np.ndarray | None) -> int:
        """Return the number of folds; 0 for too many rows, or too few groups or times."""
        kept = rows * (1.0 - shares(self.calibrated)[-1])
        units = kept if order is None else len(np.unique(order)) - 1
        return self.folds if kept <= self.fold_up_to and units >= self.folds else 0

    def _split(self, rows: int, order: np.ndarray | None, parts: tuple[float, ...]) -> Split:
        if order is None:
            return random_split(rows, parts, self.seed)
        return by_time(order, parts) if self.by_time else by_groups(order, parts, self.seed)
