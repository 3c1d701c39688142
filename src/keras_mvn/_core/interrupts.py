"""^C while a network is trained: noted at once, acted on between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, final

__all__ = ["Interruption", "deferred_interrupts", "is_interrupt"]


@final
class Interruption:
    """Whether ^C was pressed. While interrupts are deferred, this is the handler of SIGINT.

    Args:
        on_interrupt: called when the first ^C is noted.

    """

    def __init__(self, on_interrupt: Callable[[], None] | None = None) -> None:
        self.requested = False
        self._on_interrupt = on_interrupt

    def __call__(self, number: int, frame: Any) -> None:
        """Note the first ^C; raise `KeyboardInterrupt` at the second."""
        if self.requested:
            signal.default_int_handler(number, frame)
        self.requested = True
        if self._on_interrupt is not None:
            self._on_interrupt()


@contextlib.contextmanager
def deferred_interrupts(on_interrupt: Callable[[], None] | None = None) -> Iterator[Interruption]:
    """Note the first ^C instead of raising; the second raises `KeyboardInterrupt` at once.

    Raised in the middle of a step, it would find a model whose buffers JAX has given away, and may
    be swallowed by callbacks of the step. The code inside asks `requested` and ends by itself. The
    estimator and the command defer interrupts; where both do, they share the answer.

    Only Python's own handler is replaced, and only in the main thread: with another one, or in
    another thread, ^C does what it did.

    Args:
        on_interrupt: called when ^C was noted.

    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Interruption):
        yield handler
        return
    noted = Interruption(on_interrupt)
    if not _is_ours_to_replace():
        yield noted
        return
    signal.signal(signal.SIGINT, noted)
    try:
        yield noted
    finally:
        if signal.getsignal(signal.SIGINT) is noted:
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
