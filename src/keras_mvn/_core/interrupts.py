"""^C while a network is trained: noted at once, followed between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

__all__ = ["Interruption", "deferred_interrupts", "is_interrupt"]


@final
@dataclass
class Interruption:
    """Whether ^C was pressed."""

    requested: bool = False


_current: Interruption | None = None
"""Of the outermost `deferred_interrupts` that is in force."""


@contextlib.contextmanager
def deferred_interrupts(on_interrupt: Callable[[], None] | None = None) -> Iterator[Interruption]:
    """Within it the first ^C is only noted; the second raises `KeyboardInterrupt` wherever it is.

    Raised in the middle of a step, it would find a model whose buffers JAX has given away, and may
    be swallowed by what the step calls back. What is inside asks `requested` and ends by itself;
    nested calls share the answer.

    Only Python's own handler is replaced, and only in the main thread: with another one, or in
    another thread, ^C does what it did.

    Args:
        on_interrupt: is called when ^C was noted.

    """
    global _current
    if _current is not None or not _is_ours_to_replace():
        yield _current or Interruption()
        return
    noted = Interruption()

    def note(number: int, frame: Any) -> None:
        if noted.requested:
            signal.default_int_handler(number, frame)
        noted.requested = True
        if on_interrupt is not None:
            on_interrupt()

    _current = noted
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        _current = None
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_ours_to_replace() -> bool:
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def is_interrupt(error: BaseException | None) -> bool:
    """Whether ^C is behind an error: Keras' cleaning up after it may fail in its turn."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
