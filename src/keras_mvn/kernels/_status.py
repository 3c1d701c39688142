"""Report of the path that each operation takes on this machine, and why."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from keras_mvn.kernels import elliptical, parameters
from keras_mvn.kernels._dispatch import FAST, REFERENCE

__all__ = ["Status", "status"]

OPERATIONS = (elliptical, parameters)


class Status(NamedTuple):
    """The path of an operation on the active backend and its default device."""

    op: str
    backend: str
    path: str
    """"fast" or "reference"."""
    detail: str
    """The implementation of the fast path, or the reason for the reference."""


def status() -> list[Status]:
    """Return all operations and the paths they take for float32 on the default device.

    A structure or a layout of y_pred may have no fast path nevertheless; `recording` reports the
    path that a call actually took.

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
