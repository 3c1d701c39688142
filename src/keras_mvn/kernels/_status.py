"""Which path runs here, and why."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from keras_mvn.kernels import elliptical, parameters
from keras_mvn.kernels._dispatch import FAST, REFERENCE

__all__ = ["Status", "status"]

OPERATIONS = (elliptical, parameters)


class Status(NamedTuple):
    """An operation on the active backend and its default device."""

    op: str
    backend: str
    path: str
    """"fast" or "reference"."""
    detail: str
    """Of the fast path what it is made of; of the reference the reason."""


def status() -> list[Status]:
    """The operations and the paths they take: for float32 on the default device.

    A structure or a layout of y_pred may have no fast path all the same; `recording` tells what
    a call really took.

    >>> import keras_mvn as kmvn
    >>> [(s.op, s.path) for s in kmvn.kernels.status()]  # doctest: +SKIP
    [('elliptical', 'fast'), ('parameters', 'fast')]
    """
    sample = ops.zeros((1, 2), dtype="float32")
    backend = keras.backend.backend()
    found = []
    for op in OPERATIONS:
        reason = op.supports(sample)
        path = FAST if reason is None else REFERENCE
        detail = op.made_by(sample) if reason is None else reason
        found.append(Status(op.NAME, backend, path, detail))
    return found
