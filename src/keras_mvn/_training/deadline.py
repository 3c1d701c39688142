"""When training stops because its time is up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self, final

__all__ = ["FEWEST_EPOCHS", "Deadline"]

FEWEST_EPOCHS = 50
"""Number of epochs that come before the share of others: networks hardly trained say nothing."""


@final
@dataclass(frozen=True)
class Deadline:
    """The end of a network's share of the time, and of all time there is.

    Args:
        share: `time.monotonic()` at which training stops after `FEWEST_EPOCHS` epochs.
        latest: `time.monotonic()` at which it stops after any number of epochs.

    """

    share: float
    latest: float

    def passed(self, epochs: int, ahead: float = 0.0) -> bool:
        """Whether training should stop after so many epochs, if the next takes `ahead` seconds."""
        then = time.monotonic() + ahead
        return then > (self.share if epochs >= FEWEST_EPOCHS else self.latest)

    def divided(self, networks: int) -> Self:
        """Return the deadline of the first of so many networks, trained in turn."""
        now = time.monotonic()
        return type(self)(
            now + max(self.share - now, 0.0) / networks,
            now + max(self.latest - now, 0.0) / networks,
        )
