"""What is wrong with a table, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["TableError", "listed", "unknown_columns"]

LISTED = 8
"""Names that a message lists."""


class TableError(ValueError):
    """A table that cannot be used as asked: what is wrong, where, and the way out, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def listed(names: Iterable[str]) -> str:
    """Names for a message: all of a few, the first of many.

    >>> listed(["a", "b"])
    "'a', 'b'"
    """
    every = [repr(str(name)) for name in names]
    rest = len(every) - LISTED
    return ", ".join(every[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def unknown_columns(names: Sequence[str], columns: Sequence[str], option: str) -> TableError:
    """The error for names that are no columns, with the column that may have been meant."""
    close = difflib.get_close_matches(names[0], columns, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else f" The columns are {listed(columns)}."
    return TableError(f"{option}: the table has no column {listed(names)}.{meant}")
