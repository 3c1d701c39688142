"""Learning curves: the losses over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.report._format import number

__all__ = ["Learning", "learning_of"]

LATE = 0.05
"""Share of last epochs in which a best epoch means that training was cut short."""

RISE = 0.1
"""Rise of the validation loss after its best, as a share of its fall, that is overfitting."""

LAST = 5
"""Number of last epochs whose median is the loss at the end."""


@final
@dataclass(frozen=True, eq=False)
class Learning:
    """Losses of each epoch; an array is empty if its loss was not recorded."""

    loss: Array
    val_loss: Array

    @property
    def best(self) -> int:
        """Position of the epoch with the smallest validation loss."""
        return int(np.nanargmin(self.val_loss))

    @property
    def known(self) -> bool:
        """Whether there is a curve to show."""
        return len(self.loss) > 1 and bool(np.isfinite(self.loss).any())

    @property
    def validated(self) -> bool:
        """Whether there is a validation loss as well."""
        return (
            self.known
            and len(self.val_loss) == len(self.loss)
            and (bool(np.isfinite(self.val_loss).any()))
        )

    @property
    def not_finite(self) -> tuple[int, ...]:
        """Epochs (from 1) in which a loss was not finite."""
        bad = ~np.isfinite(self.loss)
        if len(self.val_loss) == len(self.loss):
            bad |= ~np.isfinite(self.val_loss)
        return tuple(int(i) + 1 for i in np.flatnonzero(bad))

    @property
    def overfitted(self) -> bool:
        """Whether the training loss kept falling while the validation loss rose."""
        if not self.validated or len(self.loss) - 1 - self.best < LAST:
            return False
        fall = np.nanmax(self.val_loss[: self.best + 1]) - self.val_loss[self.best]
        rise = self.at_end(self.val_loss) - self.val_loss[self.best]
        return bool(rise > RISE * fall and self.at_end(self.loss) < self.loss[self.best])

    @property
    def cut_short(self) -> bool:
        """Whether the validation loss was at its best in the last epochs."""
        epochs = len(self.loss)
        return (
            self.validated and epochs >= 10 and self.best >= epochs - max(1, round(LATE * epochs))
        )

    @staticmethod
    def at_end(losses: Array) -> float:
        """Return the median loss of the last epochs."""
        return float(np.nanmedian(losses[-LAST:]))

    @property
    def sentence(self) -> str:
        """The curves in words."""
        if not self.known:
            return "No learning curve was recorded."
        text = (
            f"{len(self.loss)} epochs; the training loss went from {number(self.loss[0])} to "
            f"{number(self.loss[-1])}"
        )
        if not self.validated:
            return text + "; no validation loss was recorded."
        return (
            f"{text}, the validation loss from {number(self.val_loss[0])} to a minimum of "
            f"{number(self.val_loss[self.best])} in epoch {self.best + 1}, and to "
            f"{number(self.val_loss[-1])} at the end."
        )


def learning_of(history: Mapping[str, Sequence[float]]) -> Learning:
    """Extract the losses from the history of a Keras fit."""
    loss, val_loss = (
        np.asarray(history.get(name, ()), dtype=np.float64) for name in ("loss", "val_loss")
    )
    return Learning(loss, val_loss)
