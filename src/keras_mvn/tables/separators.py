"""Detection of the character that separates the fields of a text table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

from keras_mvn.tables.errors import TableError

__all__ = ["SEPARATORS", "best_separator", "header_of", "printable"]

SEPARATORS = (",", ";", "\t", "|")

LINES = 50
"""Maximum number of lines from which the separator is guessed."""


def printable(separator: str) -> str:
    """Return the separator as a user types it on the command line."""
    return {"\t": "tab"}.get(separator, repr(separator))


def best_separator(head: str) -> str | None:
    r"""Return the separator that best gives all lines the same number of fields, at least two.

    None if there is no such separator.

    >>> best_separator("a;b;c\n1,5;2;3\n2,5;3;4\n")
    ';'
    """
    scores = {separator: _score(head, separator) for separator in SEPARATORS}
    best = max(SEPARATORS, key=lambda separator: scores[separator])
    return best if scores[best] > (0.0, 1) else None


def _score(head: str, separator: str) -> tuple[float, int]:
    """Share of lines with as many fields as the header, and that number; 0 and 1 for one field."""
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
    except csv.Error:  # a line feed in an open quote, or a field too long: keep what was read
        pass
    return rows


def header_of(head: str, separator: str) -> tuple[list[str], int]:
    """Return the names in the first nonempty line, and the number of lines read for them."""
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                return _named([cell.strip() for cell in row]), reader.line_num
    except csv.Error as error:
        raise TableError(f"the header cannot be read: {error}.") from error
    return [], 0


def _named(cells: Sequence[str]) -> list[str]:
    """Name the columns that have no name, such as the index that pandas writes."""
    return [cell or f"column {i + 1}" for i, cell in enumerate(cells)]
