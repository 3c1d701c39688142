"""Errors about tables, with one-line messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["TableError", "listed", "unknown_columns"]

LISTED = 8
"""Maximum number of names that a message lists."""


class TableError(ValueError):
    """Error for an unusable table; its one-line message states the problem and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def listed(names: Iterable[str]) -> str:
    """Format names for a message: all of them, or the first ones and how many more.

    >>> listed(["a", "b"])
    "'a', 'b'"
    """
    every = [repr(str(name)) for name in names]
    rest = len(every) - LISTED
    return ", ".join(every[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def unknown_columns(names: Sequence[str], columns: Sequence[str], option: str) -> TableError:
    """Return an error for names that are not columns; it suggests a column with a similar name."""
    close = difflib.get_close_matches(names[0], columns, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else f" The columns are {listed(columns)}."
    return TableError(f"{option}: the table has no column {listed(names)}.{meant}")
