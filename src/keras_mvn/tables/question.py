"""The prediction problem that is put to a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np

from keras_mvn.tables.dividing import Division

__all__ = ["Question"]


@final
@dataclass(frozen=True)
class Question:
    """The prediction problem: the columns to predict, the inputs, and how to split the rows."""

    targets: tuple[str, ...]
    features: tuple[str, ...] | None = None
    """Names of input columns; None: every column that is not a target, dropped, or the group."""
    drop: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Column → its kind, for columns whose kind is not to be inferred."""
    group: str | None = None
    time: str | None = None
    skip_untimed: bool = False
    """Whether rows without a time are left out; otherwise, they are an error."""
    trend: bool = False
    """Whether inputs that only grow with time are used although rows are split by time."""
    calibrated: bool = True
    folds: int = 0
    """Number of folds for cross-fitting; 0 for rows that are held out."""
    fold_up_to: float = np.inf
    """Maximum number of rows, those for testing aside, at which there are folds."""
    seed: int = 0

    @property
    def division(self) -> Division:
        """How rows are to be divided."""
        return Division(
            self.calibrated, self.folds, self.fold_up_to, self.time is not None, self.seed
        )
