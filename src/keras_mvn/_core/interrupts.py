"""Handling of Ctrl-C during training: noted immediately, acted on between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, final

__all__ = ["Interruption", "deferred_interrupts", "is_interrupt"]


@final
class Interruption:
    """SIGINT handler used while interrupts are deferred; records whether Ctrl-C was pressed.

    Args:
        on_interrupt: function called on the first Ctrl-C.

    """

    def __init__(self, on_interrupt: Callable[[], None] | None = None) -> None:
        self.requested = False
        self._on_interrupt = on_interrupt

    def __call__(self, number: int, frame: Any) -> None:
        """Note the first Ctrl-C; raise `KeyboardInterrupt` on the second."""
        if self.requested:
            signal.default_int_handler(number, frame)
        self.requested = True
        if self._on_interrupt is not None:
            self._on_interrupt()


@contextlib.contextmanager
def deferred_interrupts(on_interrupt: Callable[[], None] | None = None) -> Iterator[Interruption]:
    """Note the first Ctrl-C instead of raising; the second raises `KeyboardInterrupt` immediately.

    In the middle of a step, the exception would leave a model whose buffers JAX has donated, and
    callbacks of the step might swallow it. The code inside checks `requested` and ends by itself.
    Both the estimator and the command-line tool defer interrupts; when nested, they share one
    `Interruption`.

    Only Python's default handler is replaced, and only in the main thread: with another handler,
    or in another thread, Ctrl-C works as before.

    Args:
        on_interrupt: function called on the first Ctrl-C.

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
    """Whether Ctrl-C caused an error, possibly by way of an error in Keras' cleanup."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False
