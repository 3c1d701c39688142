"""Which character separates the fields of a text table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

from keras_mvn.tables.errors import TableError

__all__ = ["SEPARATORS", "best_separator", "header_of", "printable"]

SEPARATORS = (",", ";", "\t", "|")

LINES = 50
"""Lines from which a separator is guessed."""


def printable(separator: str) -> str:
    """As a user types it on the command line."""
    return {"\t": "tab"}.get(separator, repr(separator))


def best_separator(head: str) -> str | None:
    r"""The separator under which the first lines have equally many fields; None if none has two.

    >>> best_separator("a;b;c\n1,5;2;3\n2,5;3;4\n")
    ';'
    """
    scores = {separator: _score(head, separator) for separator in SEPARATORS}
    best = max(SEPARATORS, key=lambda separator: scores[separator])
    return best if scores[best] > (0.0, 1) else None


def _score(head: str, separator: str) -> tuple[float, int]:
    """The share of lines with the header's number of fields, and that number; 0 for one field."""
    counts = [len(row) for row in _rows(head, separator)]
    if not counts or counts[0] < 2:
        return 0.0, 1
    return Counter(counts)[counts[0]] / len(counts), counts[0]


def _rows(head: str, separator: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) == LINES:
                break
    except csv.Error:  # a line feed in an open quote, a field too long: whatever was read so far
        pass
    return rows


def header_of(head: str, separator: str) -> tuple[list[str], int]:
    """The names in the first line that is not empty, and how many lines that took."""
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                return _named([cell.strip() for cell in row]), reader.line_num
    except csv.Error as error:
        raise TableError(f"the header cannot be read: {error}.") from error
    return [], 0


def _named(cells: Sequence[str]) -> list[str]:
    """Columns without a name (pandas writes its index so) get one."""
    return [cell or f"column {i + 1}" for i, cell in enumerate(cells)]
