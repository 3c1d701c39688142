"""Detection of the character that separates the fields of a text table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_mvn.tables.errors import TableError

__all__ = ["SEPARATORS", "Header", "best_separator", "fields_of", "header_of", "printable"]

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
    reader = _reader(head, separator)
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


class Header(NamedTuple):
    """The header of a text table."""

    cells: list[str]
    """Its fields as they are."""
    names: list[str]
    """The names of the columns."""
    units: list[str]
    """The fields of the lines below it that are no row."""
    lines: int
    """Number of lines read for all of these."""


def header_of(head: str, separator: str, units_row: int = 0, quotes: bool = True) -> Header:
    """Return the names in the first nonempty line, and what the next `units_row` lines hold."""
    reader = _reader(head, separator, quotes)
    filled = (row for row in reader if any(cell.strip() for cell in row))
    try:
        cells = [cell.strip() for cell in next(filled, [])]
        units = [cell.strip() for _ in range(units_row) for cell in next(filled, [])]
    except csv.Error as error:
        raise TableError(f"the header cannot be read: {error}.") from error
    return Header(cells, _named(cells), [unit for unit in units if unit], reader.line_num)


def fields_of(line: str, separator: str) -> list[str]:
    """Return the fields of one line, trimmed; none if it is empty or cannot be read."""
    try:
        return [cell.strip() for cell in next(_reader(line, separator), [])]
    except csv.Error:
        return []


def _reader(text: str, separator: str, quotes: bool = True) -> Any:
    lines = io.StringIO(text, newline="")
    if quotes:
        return csv.reader(lines, delimiter=separator)
    return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)


def _named(cells: Sequence[str]) -> list[str]:
    """Name the columns that have no name, such as the index that pandas writes."""
    return [cell or f"column {i + 1}" for i, cell in enumerate(cells)]
