"""Errors about tables, with one-line messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import final

__all__ = ["CellError", "TableError", "cut", "listed", "unknown_columns"]

LISTED = 8
"""Maximum number of names that a message lists."""

LONGEST = 40
"""Maximum number of characters of a cell or a name that a message shows."""


class TableError(ValueError):
    """Error for an unusable table; its one-line message states the problem and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@final
class CellError(TableError):
    """Error for one cell; whoever knows where its rows come from adds the place.

    Args:
        before: str, the message up to the place.
        row: int, the row of the cell, from 0.
        after: str, the message after the place.

    """

    def __init__(self, before: str, row: int, after: str = "") -> None:
        super().__init__(f"{before} in row {row + 1}{after}")
        self.before, self.row, self.after = before, row, after

    def at(self, place: str) -> TableError:
        """Return the error with the place of the cell, such as "line 7 of new.csv"."""
        return TableError(f"{self.before} in {place}{self.after}")


def cut(text: object) -> str:
    """Return the text of a cell in quotes, short enough for a message.

    >>> cut("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…'"
    """
    whole = str(text)
    return repr(whole[:LONGEST] + "…" if len(whole) > LONGEST else whole)


def listed(names: Iterable[str]) -> str:
    """Format names for a message: all of them, or the first ones and how many more.

    >>> listed(["a", "b"])
    "'a', 'b'"
    """
    every = [cut(name) for name in names]
    rest = len(every) - LISTED
    return ", ".join(every[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def unknown_columns(
    names: Sequence[str], columns: Sequence[str], option: str, hint: str = ""
) -> TableError:
    """Return an error for names that are not columns, with a hint or a column of a similar name."""
    close = difflib.get_close_matches(names[0], columns, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else f" The columns are {listed(columns)}."
    return TableError(f"{option}: the table has no column {listed(names)}.{hint or meant}")
