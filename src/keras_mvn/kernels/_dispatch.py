"""Choice of path for an operation: the fast one if supported, else the reference."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

__all__ = ["BACKENDS", "FAST", "REFERENCE", "Ran", "choose", "module_of_backend", "recording"]

FAST, REFERENCE = "fast", "reference"

BACKENDS = ("jax", "tensorflow", "torch")
"""Backends with kernels: each operation's folder has a module with their name."""


class Ran(NamedTuple):
    """The path that a call took."""

    op: str
    path: str
    """"fast" or "reference"."""
    reason: str | None
    """Reason for the reference; None for the fast path."""


# Plain lists, because torch.compile traces this and does not support context variables.
_RECORDS: list[list[Ran]] = []


@contextlib.contextmanager
def recording() -> Iterator[list[Ran]]:
    """Record the paths that operations take when they are called or traced, in order.

    Records calls from all threads; when nested, only the innermost context records.

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
    """Import and return only the active backend's module of an operation; None if it has none.

    Call it once, on import: an import while a function is traced would break torch.compile.
    """
    name = keras.backend.backend()
    return importlib.import_module(f"{operation}.{name}") if name in BACKENDS else None


def choose(op: str, fused: bool | None, reason: str | None) -> bool:
    """Return whether to take the fast path.

    Args:
        op: name of the operation.
        fused: None: take it if supported; True: raise an error if not supported; False: never.
        reason: reason why the fast path is not supported; None if it is.

    Raises:
        ValueError: fused=True, but the fast path is not supported.

    """
    if fused is False:
        reason = "fused=False"
    if fused is True and reason is not None:
        raise ValueError(
            f"fused=True: the fast path of {op} is not available: {reason} "
            "Use fused=None to fall back to the reference; see keras_mvn.kernels.status()."
        )
    if _RECORDS:
        _RECORDS[-1].append(Ran(op, FAST if reason is None else REFERENCE, reason))
    return reason is None
