"""A training job for all members of an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Job", "Snapshot"]


class Snapshot(NamedTuple):
    """Everything that training in one pass goes on from, between two epochs."""

    epoch: int
    """The number of epochs that are over."""
    variables: list[np.ndarray]
    """Trainable, non-trainable and optimizer variables, stacked over members."""
    best: list[np.ndarray]
    """The best variables so far, alike."""
    stopping: dict[str, Any]
    """Plain values of early stopping."""
    histories: list[dict[str, list[float]]]


@dataclass(frozen=True)
class Job:
    """What to train the members on, and how long.

    The fields from `orders` on are for training in one pass only.
    """

    x: Any
    y: Any
    validation_data: Any
    epochs: int
    batch_size: int | None
    patience: int | None
    """None: no early stopping."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `keras.Model.fit`."""
    orders: Callable[[int], np.ndarray] | None = None
    """Epoch → the rows in the order of training, (members, rows); None shuffles as Keras does."""
    averaged: bool = False
    """Validate and keep the averaged weights of an optimizer with `use_ema`, as
    `keras.callbacks.SwapEMAWeights` does."""
    start: Snapshot | None = None
    """Where an earlier process was killed."""
    after_epoch: Callable[[dict[str, np.ndarray], Callable[[], Snapshot]], bool] | None = None
    """Called with the members' logs, and a function that takes a snapshot; True ends training."""
