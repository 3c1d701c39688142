"""Predictions of requests that arrive together, made in one call of the networks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np

from keras_mvn.distributions import Distribution

__all__ = ["Batcher"]


class _Waiting(NamedTuple):
    x: np.ndarray
    absent: np.ndarray
    answer: asyncio.Future[Distribution]


@final
class Batcher:
    """Collects rows while the networks are busy, and predicts for all of them next.

    One call at a time: networks use all cores, and a Keras model is not made for several threads.

    Args:
        predict: function from inputs (n, features) and a mask of absent ones to distributions.
        most_rows: rows of a call, at most, unless a single request has more.

    """

    def __init__(
        self, predict: Callable[[np.ndarray, np.ndarray], Distribution], most_rows: int = 4096
    ) -> None:
        self._predict, self._most = predict, most_rows
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Answer nothing more; what is being predicted is finished first."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def answer(self, x: np.ndarray, absent: np.ndarray) -> Distribution:
        """Return the predictions for these rows, one or more."""
        future: asyncio.Future[Distribution] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Waiting(x, absent, future))
        return await future

    async def _run(self) -> None:
        while True:
            together = [await self._queue.get()]
            rows = len(together[0].x)
            while not self._queue.empty() and rows < self._most:
                together.append(self._queue.get_nowait())
                rows += len(together[-1].x)
            x = np.concatenate([one.x for one in together])
            absent = np.concatenate([one.absent for one in together])
            try:
                found = await asyncio.to_thread(self._predict, x, absent)
            except Exception as error:
                _fail(together, error)
                continue
            self._hand_out(together, found)

    @staticmethod
    def _hand_out(together: list[_Waiting], found: Distribution) -> None:
        first = 0
        for one in together:
            last = first + len(one.x)
            if not one.answer.cancelled():
                one.answer.set_result(found[first:last])
            first = last


def _fail(together: list[_Waiting], error: Exception) -> None:
    for one in together:
        if not one.answer.cancelled():
            one.answer.set_exception(error)
