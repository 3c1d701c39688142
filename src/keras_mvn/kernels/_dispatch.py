"""Which path an operation takes: the fast one where it is supported, else the reference."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

__all__ = ["BACKENDS", "FAST", "REFERENCE", "Ran", "choose", "module_of_backend", "recording"]

FAST, REFERENCE = "fast", "reference"

BACKENDS = ("jax", "tensorflow", "torch")
"""Those that have kernels: a module of their name in the folder of each operation."""


class Ran(NamedTuple):
    """A path that was taken."""

    op: str
    path: str
    """"fast" or "reference"."""
    reason: str | None
    """Why not the fast one."""


# Plain lists: torch.compile traces through this, and knows no context variables.
_RECORDS: list[list[Ran]] = []


@contextlib.contextmanager
def recording() -> Iterator[list[Ran]]:
    """The paths that operations take, when they are called or traced, in the order they do.

    Of all threads together; of two within one another the inner one records.

    >>> import numpy as np, keras_mvn as kmvn
    >>> loss = kmvn.losses.NegativeLogLikelihood(fused=False)
    >>> with kmvn.kernels.recording() as ran:
    ...     value = loss(np.zeros((1, 2)), np.array([[0.0, 0.0, 1.0, 1.0, 0.5]]))
    >>> ran
    [Ran(op='elliptical', path='reference', reason='fused=False')]
    """
    records: list[Ran] = []
    _RECORDS.append(records)
    try:
        yield records
    finally:
        _RECORDS.pop()


def module_of_backend(operation: str) -> Any:
    """The active backend's module in this package; no other is imported. None: it has none.

    To be called once, on import: an import while a function is traced would stop torch.compile.
    """
    name = keras.backend.backend()
    return importlib.import_module(f"{operation}.{name}") if name in BACKENDS else None


def choose(op: str, fused: bool | None, reason: str | None) -> bool:
    """Whether to take the fast path.

    Args:
        op: name of the operation.
        fused: None where it is supported, True or else raise, False never.
        reason: why the fast path is not supported; None if it is.

    Raises:
        ValueError: fused=True, and it is not.

    """
    if fused is False:
        reason = "fused=False"
    if fused is True and reason is not None:
        raise ValueError(
            f"fused=True: the fast path of {op} is not there: {reason} "
            "Use fused=None, which takes the reference then; see keras_mvn.kernels.status()."
        )
    if _RECORDS:
        _RECORDS[-1].append(Ran(op, FAST if reason is None else REFERENCE, reason))
    return reason is None
