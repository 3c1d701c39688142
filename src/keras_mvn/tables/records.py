"""Records of a text table: where each begins, how many fields it has, and where quotes go wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, final

import numpy as np

__all__ = ["QuoteError", "Record", "quotes_span_lines", "records"]

QUOTE = 0x22


@final
class Record(NamedTuple):
    """One row of a text table."""

    line: int
    """The number of its first line."""
    fields: int


@final
class QuoteError(Exception):
    """A quote that is not closed where its field ends.

    Args:
        line: int, where it opens.
        closes: int, the line of the next quote; None: there is none.

    """

    def __init__(self, line: int, closes: int | None) -> None:
        super().__init__(line, closes)
        self.line, self.closes = line, closes


def quotes_span_lines(blocks: Iterable[bytes]) -> bool:
    """Whether a line may end within quotes; if not, every row is on a line of its own."""
    odd = 0
    for block in blocks:
        if not odd and QUOTE not in block:
            continue
        characters = np.frombuffer(block, np.uint8)
        quotes = np.flatnonzero(characters == QUOTE)
        ends = np.flatnonzero((characters == 0x0A) | (characters == 0x0D))
        if ((np.searchsorted(quotes, ends) + odd) % 2).any():
            return True
        odd = (odd + len(quotes)) % 2
    return bool(odd)


def records(
    lines: Iterable[tuple[int, bytes]], separator: str, quotes: bool, width: int
) -> Iterator[Record]:
    """Yield the records that the numbered lines make up; empty lines are none.

    Args:
        lines: (number, line) in UTF-8.
        separator: str, the separator of fields.
        quotes: bool, whether quotes may enclose separators and ends of lines.
        width: int, number of columns: lines with so many fields within quotes look like rows.

    Raises:
        QuoteError: a quote is never closed, or closed within a later row.

    """
    numbered = ((number, text.rstrip(b"\r\n")) for number, text in lines)
    mark = separator.encode()
    for number, text in numbered:
        if not text.strip():
            continue
        if not quotes or b'"' not in text:
            yield Record(number, text.count(mark) + 1)
        else:
            yield Record(number, _fields(number, text, numbered, mark, width))


def _fields(
    number: int, text: bytes, following: Iterator[tuple[int, bytes]], mark: bytes, width: int
) -> int:
    """Count the fields of a record that begins with this line; read further ones as needed."""
    fields, at = 1, 0
    while True:
        if text.startswith(b'"', at):
            opened = number
            number, text, at = _closed(number, text, at + 1, following, mark, width)
            if at < len(text) and not text.startswith(mark, at) and number > opened:
                raise QuoteError(opened, number)
        end = text.find(mark, at)
        if end < 0:
            return fields
        fields, at = fields + 1, end + len(mark)


def _closed(
    number: int,
    text: bytes,
    at: int,
    following: Iterator[tuple[int, bytes]],
    mark: bytes,
    width: int,
) -> tuple[int, bytes, int]:
    """Return the line in which the quoted field ends, its text, and the place after the quote."""
    opened, within = number, []
    while True:
        end = text.find(b'"', at)
        if end < 0:
            number, text = next(following, (0, b""))
            if not number:
                raise QuoteError(opened, None)
            within.append(text)
            at = 0
        elif text.startswith(b'""', end):
            at = end + 2
        else:
            if _are_rows(within[:-1], mark, width):
                raise QuoteError(opened, number)
            return number, text, end + 1


def _are_rows(lines: list[bytes], mark: bytes, width: int) -> bool:
    """Whether all lines within a quoted field look like rows of the table."""
    if not lines or (width < 3 and len(lines) < 3) or width < 2:
        return False
    return all(line.count(mark) + 1 == width for line in lines)
