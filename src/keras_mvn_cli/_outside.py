"""Rows outside what the training rows reach, where a model extrapolates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.layers import SoftClip

__all__ = ["Outside"]

CHANCE = 1e-4
"""Probability at which rows beyond the training rows are told, if nothing has changed."""

SMALLEST_SHARE = 0.01
"""Share of the rows below which they are not told, however few the training rows are."""


class _Shift(NamedTuple):
    """An input of which too many values lie beyond one end of its range."""

    column: int
    rows: int
    above: bool


@final
class Outside:
    """Counts rows beyond the range of each input in the training rows.

    New rows go beyond that range by chance, too: if nothing has changed, c of m new rows lie above
    the largest of n training rows with probability ∏ (m − i)/(n + m − i), i < c. An input is told
    if that probability is below 1e-4, shared by both ends of all inputs.

    Args:
        limits: the range of the inputs.
        trained: number of training rows.

    """

    def __init__(self, limits: SoftClip, trained: int) -> None:
        self._limits, self._trained = limits, trained
        self._rows = 0
        self._counts = np.zeros((2, len(limits.lower)), int)
        self._extremes = np.stack([limits.lower, limits.upper])

    def add(self, x: Array) -> None:
        """Count further rows, (n, features), in the units of the network's inputs."""
        low, high = self._limits.lower, self._limits.upper
        self._rows += len(x)
        # Inputs are stored in float32: a value that is the limit itself must not be beyond it.
        slack = 1e-6 * np.maximum(np.abs(low), np.abs(high))
        self._counts += [(x < low - slack).sum(axis=0), (x > high + slack).sum(axis=0)]
        if len(x):
            self._extremes[0] = np.minimum(self._extremes[0], x.min(axis=0))
            self._extremes[1] = np.maximum(self._extremes[1], x.max(axis=0))

    def told(self, names: Sequence[str], in_units: Any) -> list[str]:
        """Describe the inputs of which too many values are beyond the training rows.

        Args:
            names: names of the inputs.
            in_units: function from inputs (rows, features) to the units of their columns.

        """
        ends = in_units(np.stack([self._limits.lower, self._limits.upper]))
        reached = in_units(self._extremes)
        said = []
        for shift in self._shifts():
            side, far = ("above", "up to") if shift.above else ("below", "down to")
            end, value = (table[int(shift.above), shift.column] for table in (ends, reached))
            said.append(
                f"{names[shift.column]}: {shift.rows} of {self._rows} rows lie {side} {end:.6g}, "
                f"{'the largest' if shift.above else 'the smallest'} of the training rows, {far} "
                f"{value:.6g}"
            )
        return said

    def _shifts(self) -> list[_Shift]:
        level = np.log(CHANCE / self._counts.size)
        found = [
            _Shift(int(column), int(self._counts[end, column]), bool(end))
            for end, column in zip(*np.nonzero(self._counts), strict=True)
        ]
        few = SMALLEST_SHARE * self._rows
        told = [one for one in found if one.rows > few and self._log_chance(one.rows) < level]
        return sorted(told, key=lambda one: -one.rows)

    def _log_chance(self, count: int) -> float:
        i = np.arange(count)
        n, m = self._trained, self._rows
        return float(np.log((m - i) / (n + m - i)).sum())
