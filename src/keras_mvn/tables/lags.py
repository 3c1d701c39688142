"""Earlier values of columns as further columns, for rows that follow each other in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.cells import Cells
from keras_mvn.tables.clock import Clock, Times
from keras_mvn.tables.errors import CellError, TableError, cut
from keras_mvn.tables.table import Table

__all__ = ["LaggedTable", "Lags", "lagged", "lags_of"]

LARGEST_EXACT = 2.0**53
"""Whole number beyond which float64 has not every one."""

UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
"""Seconds of a unit, and its symbol, from the longest."""


@final
@dataclass(frozen=True)
class Lags:
    """Which earlier values are added to a row: those of some columns, some numbers of rows before.

    Args:
        columns: names of columns of numbers.
        steps: numbers of rows to go back, each at least 1, ascending.

    """

    columns: tuple[str, ...]
    steps: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the further columns: lags, then the changes between successive ones."""
        return tuple(name for name, *_ in self._parts())

    def _parts(self) -> Iterator[tuple[str, int, int, int | None]]:
        """Yield name, position of the column, rows to go back, and the lag that is subtracted."""
        for j, column in enumerate(self.columns):
            for step in self.steps:
                yield f"{column} lag {step}", j, step, None
            for near, far in pairwise(self.steps):
                yield f"{column} change {far} to {near}", j, near, far

    def of(self, window: Array) -> dict[str, Array]:
        """Return the further columns, (n,) each, of the last n rows of (steps[-1] + n, columns)."""
        first, n = self.steps[-1], len(window) - self.steps[-1]

        def back(step: int, j: int) -> Array:
            return np.asarray(window[first - step : first - step + n, j])

        return {
            name: back(near, j) if far is None else back(near, j) - back(far, j)
            for name, j, near, far in self._parts()
        }


def lagged(table: Table, lags: Lags, clock: Clock) -> LaggedTable:
    """Add lags to a table.

    Args:
        table: a table with a row per time, sorted by time.
        lags: what to add.
        clock: reads the times.

    Raises:
        TableError: a column is unknown, or holds no numbers; rows are not in the order of time,
            have the same time or none.

    """
    table.require(lags.columns, "--lag-columns")
    times = clock.read(table)
    with table.located():
        _check_order(times.numbers, times.dated, clock.column)
    return LaggedTable(table, lags, clock.cells, _irregular(times))


@final
class LaggedTable(Table):
    """A table with earlier values of some columns as further columns; use `lagged` to make one."""

    def __init__(self, table: Table, lags: Lags, cells: Cells, notes: tuple[str, ...]) -> None:
        self._table, self._lags, self._cells = table, lags, cells
        self.is_text = table.is_text
        self.derived = lags.names
        self.history = lags.steps[-1]
        super().__init__(table.path, (*table.columns, *lags.names), notes, table.index)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was detected in the file, and how regular its times are."""
        return (*self._table.notes, *self._notes)

    def place(self, row: int) -> str:
        """Return where a row is in the file."""
        return self._table.place(row)

    def hint(self, names: Any) -> str:
        """Return what may help if these columns are missing."""
        return self._table.hint(names)

    def _types(self) -> dict[str, Any]:
        arrow = require("pyarrow", "reading a table")
        return {**self._table._types(), **dict.fromkeys(self.derived, arrow.float64())}

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        if not set(columns) & set(self.derived):
            yield from self._table.batches(columns)
            return
        arrow = require("pyarrow", "reading a table")
        read = [name for name in columns if name not in self.derived]
        before = np.full((self.history, len(self._lags.columns)), np.nan)
        first = 0
        for batch in self._table.batches(list(dict.fromkeys([*read, *self._lags.columns]))):
            with self.located(first):
                window = np.concatenate([before, self._numbers(batch)])
            added = self._lags.of(window)
            arrays = [
                arrow.array(added[name], from_pandas=True) if name in added else batch.column(name)
                for name in columns
            ]
            yield arrow.RecordBatch.from_arrays(arrays, columns)
            before = window[len(window) - self.history :]
            first += batch.num_rows

    def _numbers(self, batch: Any) -> Array:
        """Return the columns with lags, (n, columns); NaN where missing."""
        found = []
        for name in self._lags.columns:
            column = batch.column(name)
            numbers, unreadable = self._cells.numbers(column)
            bad = unreadable | np.isinf(numbers)
            if bad.any():
                row = int(np.argmax(bad))
                raise CellError(
                    f"--lag-columns: {name!r} must hold finite numbers; found "
                    f"{cut(column[row].as_py())}",
                    row,
                )
            found.append(numbers)
        return np.stack(found, axis=1)


def _check_order(times: Array, dated: bool, column: str) -> None:
    """Check that every row has a time, and a later one than the row before."""
    if not len(times):
        return
    without = np.isnan(times)
    if without.any():
        raise CellError(
            f"--time {column}: no time", int(np.argmax(without)), "; --lags needs one in every row."
        )
    wrong = np.diff(times) <= 0
    if wrong.any() and not dated and np.abs(times).max() >= LARGEST_EXACT:
        raise TableError(
            f"--time {column}: its numbers reach {np.abs(times).max():.3g}, where neighbors cannot "
            "be told apart; use a column of dates, or of smaller numbers."
        )
    if wrong.any():
        raise CellError(
            f"--time {column}: not later than the row before",
            int(np.argmax(wrong)) + 1,
            f" ({int(wrong.sum())} such rows). --lags counts rows back: sort the table by "
            f"{column}, one row for each time.",
        )


def _irregular(times: Times) -> tuple[str, ...]:
    """Return a note if rows are not equally far apart, since lags count rows."""
    steps = np.diff(times.numbers)
    if not len(steps):
        return ()
    usual = float(np.median(steps))
    differing = int(np.count_nonzero(np.abs(steps - usual) > 1e-6 * usual))
    if not differing:
        return ()
    return (
        f"lags count rows, and {differing} of {len(steps)} steps in time differ from "
        f"{_duration(usual) if times.dated else f'{usual:g}'}",
    )


def _duration(seconds: float) -> str:
    unit, symbol = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{seconds / unit:g} {symbol}"


def lags_of(columns: tuple[str, ...], steps: tuple[int, ...]) -> Lags | None:
    """Return the lags for these options, or None if none were given.

    Raises:
        TableError: one of the two is missing, or a step is repeated or below 1.

    """
    if not columns and not steps:
        return None
    if not columns or not steps:
        given, lacking = ("--lags", "--lag-columns") if steps else ("--lag-columns", "--lags")
        raise TableError(f"{given} needs {lacking}: which columns, and how many rows back.")
    if min(steps) < 1:
        raise TableError(f"--lags {min(steps)}: a lag goes back by at least one row.")
    return Lags(tuple(dict.fromkeys(columns)), tuple(sorted(set(steps))))
