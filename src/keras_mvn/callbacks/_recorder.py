"""The batches of the last training steps, which Keras shows to no callback."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

__all__ = ["Recorder", "record"]


class Recorder:
    """A model's compiled training function that keeps references to the batches it was fed.

    Keras calls it with a list of batches on PyTorch, `(state, iterator)` on JAX and an iterator
    on TensorFlow; from an iterator as many are taken as one execution uses. Nothing is copied.
    """

    def __init__(self, function: Any, steps_per_execution: int) -> None:
        self.function = function
        self._steps = steps_per_execution
        self._epoch = self._begin = 0
        self._recent: deque[tuple[int, int, list[Any]]] = deque(maxlen=2)  # two executions

    def expect(self, begin: int) -> None:
        """The number within the epoch of the batch that comes next."""
        self._begin = begin
        self._epoch += begin == 0

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, and keep its batches."""
        *state, source = arguments
        if isinstance(source, list):
            self._recent.append((self._epoch, self._begin, source))
            return self.function(*state, source)
        batches = list(itertools.islice(source, self._steps))
        if not batches:
            raise StopIteration
        self._recent.append((self._epoch, self._begin, batches))
        return self.function(*state, iter(batches))

    def batches(self) -> list[tuple[int, Any]]:
        """Number and data of the recent batches of this epoch, the newest first."""
        return [
            (begin + i, group[i])
            for epoch, begin, group in reversed(self._recent)
            for i in reversed(range(len(group)))
            if epoch == self._epoch
        ]

    def earlier(self) -> list[Any]:
        """The batches of the execution before the last, of whichever epoch."""
        return self._recent[0][-1] if len(self._recent) == 2 else []


def record(model: Any) -> Recorder:
    """Put a recorder into the model's training function, unless there is one.

    TensorFlow's strategies of several replicas feed the function themselves; there the recorder
    must stay out (the caller checks).
    """
    function = model.train_function
    if isinstance(function, Recorder):
        return function
    recorder = Recorder(function, model.steps_per_execution)
    model.train_function = recorder
    return recorder
