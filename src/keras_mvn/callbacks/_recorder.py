"""Access to the batches of the last training steps, which Keras does not pass to callbacks."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

__all__ = ["Recorder", "record"]


class Recorder:
    """A wrapper of a model's training function that keeps references to the recent batches.

    Keras calls it with a list of batches on PyTorch, `(state, iterator)` on JAX and an iterator
    on TensorFlow; from an iterator it takes as many batches as one execution uses. Nothing is
    copied.
    """

    def __init__(self, function: Any, steps_per_execution: int) -> None:
        self.function = function
        self._steps = steps_per_execution
        self._epoch = self._begin = 0
        self._recent: deque[tuple[int, int, list[Any]]] = deque(maxlen=2)  # two executions

    def expect(self, begin: int) -> None:
        """Set the number, within the epoch, of the next batch."""
        self._begin = begin
        self._epoch += begin == 0

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, and keep references to its batches."""
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
        """Return number and data of the recent batches of this epoch, newest first."""
        return [
            (begin + i, group[i])
            for epoch, begin, group in reversed(self._recent)
            for i in reversed(range(len(group)))
            if epoch == self._epoch
        ]

    def earlier(self) -> list[Any]:
        """Return the batches of the second-to-last execution, of any epoch."""
        return self._recent[0][-1] if len(self._recent) == 2 else []


def record(model: Any) -> Recorder:
    """Wrap the model's training function in a recorder, unless it already is in one.

    TensorFlow's strategies with several replicas feed the function themselves; the recorder must
    not be used with them (the caller checks).
    """
    function = model.train_function
    if isinstance(function, Recorder):
        return function
    recorder = Recorder(function, model.steps_per_execution)
    model.train_function = recorder
    return recorder
