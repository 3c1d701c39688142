"""A training job for all members of an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Job", "Snapshot"]


class Snapshot(NamedTuple):
    """The state between two epochs from which training in one pass can resume."""

    epoch: int
    """The number of completed epochs."""
    variables: list[np.ndarray]
    """Trainable, non-trainable and optimizer variables, stacked over members."""
    best: list[np.ndarray]
    """The best variables so far, stacked likewise."""
    stopping: dict[str, Any]
    """The state of early stopping, as plain values."""
    histories: list[dict[str, list[float]]]


@dataclass(frozen=True)
class Job:
    """The data to train the members on, and for how long.

    The fields from `orders` on are used only for training in one pass.
    """

    x: Any
    y: Any
    validation_data: Any
    epochs: int
    batch_size: int | None
    patience: int | None
    """None for no early stopping."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `keras.Model.fit`."""
    orders: Callable[[int], np.ndarray] | None = None
    """Function from epoch to row order, (members, rows); None shuffles as Keras does."""
    validated: np.ndarray | None = None
    """Positions in the validation data, (members, rows), of the rows of each member; None for all
    of them."""
    averaged: bool = False
    """Whether to validate and keep the averaged weights of an optimizer with `use_ema`, as
    `keras.callbacks.SwapEMAWeights` does."""
    start: Snapshot | None = None
    """The state in which an earlier process was killed."""
    after_epoch: Callable[[dict[str, np.ndarray], Callable[[], Snapshot]], bool] | None = None
    """Called with the members' logs and a function that takes a snapshot; True ends training."""
