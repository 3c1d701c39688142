"""The column that orders rows in time, read as numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.cells import Cells, Values
from keras_mvn.tables.deciding import Decision, decide
from keras_mvn.tables.errors import TableError
from keras_mvn.tables.profiling import Profile, profiles_of
from keras_mvn.tables.table import Table

__all__ = ["Clock", "Times", "grows", "values_of"]


class Times(NamedTuple):
    """The times of all rows."""

    numbers: Array
    """(rows,), NaN for rows without a time."""
    dated: bool
    """Whether they are dates, in seconds; otherwise numbers or times of day."""


@final
@dataclass(frozen=True)
class Clock:
    """The column that holds the times.

    Args:
        column: its name.
        kind: what it holds, if that was said; otherwise it is inferred.
        cells: rules for reading cells.

    """

    column: str
    kind: str | None
    cells: Cells

    def read(self, table: Table) -> Times:
        """Read the times of all rows.

        Raises:
            TableError: the column does not exist, or holds neither numbers nor dates.

        """
        table.require((self.column,), "--time")
        kinds = {} if self.kind is None else {self.column: self.kind}
        profile = profiles_of([self.column], self.cells, kinds)[self.column]
        rows = 0
        for batch in table.batches([self.column]):
            profile.update(batch.column(0), np.arange(rows, rows + batch.num_rows))
            rows += batch.num_rows
        with table.located():
            decision = _of_few_rows(profile, decide(profile, self.kind))
        return Times(self.of(table, decision), decision.kind == "date")

    def of(self, table: Table, decision: Decision, rows: np.ndarray | None = None) -> Array:
        """Return the times of some rows as numbers, given what the column holds.

        Args:
            table: the table.
            decision: what the column holds.
            rows: ascending row numbers; None for all rows.

        Raises:
            TableError: it holds neither numbers nor dates nor times of day.

        """
        arrow = require("pyarrow", "reading a table")
        found, first = [np.zeros(0)], 0
        for batch in table.batches([self.column]):
            column, last = batch.column(0), first + batch.num_rows
            if rows is not None:
                low, high = np.searchsorted(rows, (first, last))
                column = column.take(arrow.array(rows[low:high] - first))
            values = values_of(column, decision, self.cells)
            if values is None:
                raise TableError(
                    f"--time {self.column}: neither number nor date, but {decision.why}."
                )
            found.append(values.numbers)
            first = last
        return np.concatenate(found)


def _of_few_rows(profile: Profile, decision: Decision) -> Decision:
    """Return what a column holds in which all times are equal, as in a table of one row."""
    if decision.kind != "dropped" or not profile.present:
        return decision
    if profile.number is not None and profile.number.readable == profile.present:
        return replace(decision, kind="number")
    best = profile.best_form()
    if best is None or best[2].readable < profile.present:
        return decision
    return replace(decision, kind=best[0], form=best[1] or None)


def values_of(column: Any, decision: Decision, cells: Cells) -> Values | None:
    """Read cells whose order means something, as numbers; return None for cells of other kinds."""
    readers: dict[str, Callable[[Any], Values]] = {
        "number": cells.numbers,
        "date": lambda column: cells.instants(column, decision.form),
        "time of day": lambda column: cells.times_of_day(column, decision.form),
    }
    read = readers.get(decision.kind)
    return None if read is None else read(column)


FEWEST = 24
"""Minimum number of values from which it can be told that they only grow."""

AGAINST = 0.01
"""Share of steps that may go the other way, as at a glitch."""

BLOCKS = 8
"""Number of blocks in time whose medians are compared."""


def grows(values: Array, times: Array) -> bool:
    """Whether values only rise, or only fall, in time, so that later ones lie beyond all of these.

    A column that changes once, as from 0 to 1, does not: both values were seen.

    Args:
        values: (n,), NaN where missing.
        times: (n,), their times.

    """
    ordered = values[np.argsort(times, kind="stable")]
    ordered = ordered[np.isfinite(ordered)]
    if len(ordered) < FEWEST:
        return False
    levels = {float(np.median(block)) for block in np.array_split(ordered, BLOCKS)}
    steps = np.diff(ordered)
    against = min(np.count_nonzero(steps < 0), np.count_nonzero(steps > 0))
    return len(levels) > 2 and bool(against <= AGAINST * len(ordered))
