"""Tables in text files.

Every column is read as text, so that all of its cells decide what it is, not just those in the
first block.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, final

from keras_mvn._core.optional import require
from keras_mvn.tables.column_names import columns_named
from keras_mvn.tables.errors import TableError, cut, listed
from keras_mvn.tables.lines import BLOCK, Lines, Stream
from keras_mvn.tables.records import QuoteError, Record, quotes_span_lines, records
from keras_mvn.tables.separators import (
    SEPARATORS,
    best_separator,
    fields_of,
    header_of,
    printable,
)
from keras_mvn.tables.table import Table, explained, leading_unnamed

__all__ = ["Reading", "TextTable"]

HEAD = 1 << 18
"""Bytes from which encoding, separator and header are detected; more if the header is longer."""

LAST = 5
"""Number of lines at the end among which one with other fields may be a footer."""

COMMENTS = ("#", "%", "//", "!", "*")
"""What lines begin with that may be comments."""


@final
@dataclass(frozen=True)
class Reading:
    """How a text table is read.

    Args:
        separator: str, the separator of fields; None: detect it.
        encoding: str; None: detect it.
        skip_rows: int, number of lines before the header.
        skip_footer: int, number of lines after the last row.
        comment: str, what lines begin with that are left out; None or "": there are none.
        units_row: int, number of lines between the header and the first row, such as units.
        quotes: bool, whether quotes may enclose fields; otherwise, they are ordinary characters.
        numeric_header: bool, whether the names of the columns may all be numbers, such as years.

    """

    separator: str | None = None
    encoding: str | None = None
    skip_rows: int = 0
    skip_footer: int = 0
    comment: str | None = None
    units_row: int = 0
    quotes: bool = True
    numeric_header: bool = False


@final
class TextTable(Table):
    """A text file with a header.

    Args:
        path: Path of the file.
        reading: Reading.
        usual: str, the separator that the name of the file suggests; None: it suggests none.

    """

    is_text = True

    def __init__(self, path: Path, reading: Reading, usual: str | None = None) -> None:
        self.path, self._reading, self._checked = path, reading, False
        whole, encoding = _head(path, reading.encoding)
        self._lines = Lines(
            path, encoding, reading.skip_rows, reading.skip_footer, reading.comment or None
        )
        self._numbered = self._head_lines(whole)
        notes = [] if encoding == "utf-8" else [f"encoding {encoding}"]
        declared = self._declared_separator()
        head = "".join(text for _, text in self._numbered)
        best = best_separator(head)
        separator = reading.separator or declared or usual
        if separator is None:
            separator = best or ","
        if separator != usual:
            notes.append(f"separator {printable(separator)}")
        self._separator = separator
        self._check_header_quotes()
        header = header_of(head, separator, reading.units_row, reading.quotes)
        self._header_lines = header.lines
        names = header.names
        if not names:
            raise TableError(f"{path} is empty: a table needs a header and rows.")
        if len(names) == 1 and best not in (None, separator):
            raise TableError(
                f"{path}: with the separator {printable(separator)} there is only one column, "
                f"{cut(names[0])}. The lines look separated by {printable(best or '')}; use "
                f"--separator {printable(best or '')}"
            )
        if all(_is_number(name) for name in names) and not reading.numeric_header:
            raise TableError(
                f"{path}: the first line, {listed(names)}, looks like data; it must hold the "
                "column names. If the numbers are the names, use --numeric-header"
                f"{self.hint(())}"
            )
        if header.units and all(map(_is_number, header.units)):
            raise TableError(
                f"{path}: the line below the header holds numbers, {listed(header.units)}, and no "
                "units. If it is the first row, leave out --units-row; after a fit with that "
                "option, use --no-units-row"
            )
        if header.units:
            notes.append(f"units {listed(header.units)}")
        index = names[: 0 if header.cells[0] else 1] + leading_unnamed(header.cells)
        super().__init__(path, names, notes, index)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was detected in the file, and how many lines were left out as comments."""
        counts = [count for count in self._lines.comments if count]
        told = [f"{n} line{'s' if n > 1 else ''} left out as comments" for n in counts]
        return (*self._notes, *told)

    def _head_lines(self, head: str) -> list[tuple[int, str]]:
        """Return the first lines of the table with their numbers."""
        lines = enumerate(io.StringIO(head, newline=""), 1)
        return [
            (number, text)
            for number, text in lines
            if number > self._lines.skip and not self._lines.is_comment(text.encode())
        ]

    def _declared_separator(self) -> str | None:
        """Skip a first line such as `sep=;`, by which Excel is told the separator; return that."""
        if not self._numbered:
            return None
        number, text = self._numbered[0]
        found = re.fullmatch(r'"?sep=([^"])"?[;,\t|]*', text.rstrip("\r\n"), re.IGNORECASE)
        if found is None:
            return None
        self._lines = replace(self._lines, skip=number)
        self._numbered = self._numbered[1:]
        return found[1]

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        arrow, text = require("pyarrow", "reading a table"), require("pyarrow.csv", "reading")
        self._check_quotes()
        ragged: list[Any] = []

        def refuse(row: Any) -> str:
            if not row.text.strip():  # a line of blanks
                return "skip"
            ragged.append(row)
            return "error"

        try:
            with (
                Stream(self._lines.table(self._header_lines)) as stream,
                text.open_csv(
                    stream,
                    read_options=text.ReadOptions(
                        block_size=BLOCK, use_threads=False, column_names=list(self.columns)
                    ),
                    parse_options=text.ParseOptions(
                        delimiter=self._separator,
                        quote_char='"' if self._reading.quotes else False,
                        newlines_in_values=True,
                        invalid_row_handler=refuse,
                    ),
                    convert_options=text.ConvertOptions(
                        column_types=dict.fromkeys(self.columns, arrow.string()),
                        include_columns=columns,
                        null_values=[],
                        strings_can_be_null=False,
                    ),
                ) as reader,
            ):
                yield from reader
        except arrow.ArrowInvalid as error:
            if ragged:
                raise self._ragged(ragged[0]) from error
            if "Empty CSV" in str(error):
                return
            raise

    def _records(self) -> Iterator[Record]:
        """Yield the rows with their lines."""
        lines = islice(self._lines.numbered(), self._header_lines, None)
        return records(lines, self._separator, self._reading.quotes, len(self.columns))

    def _check_quotes(self) -> None:
        """Check that no quote swallows rows, since a parser takes them for one long field."""
        if self._checked or not self._reading.quotes:
            return
        if quotes_span_lines(self._lines.table(self._header_lines)):
            with self._explained_quotes():
                for _ in self._records():
                    pass
        self._checked = True

    def _check_header_quotes(self) -> None:
        lines = ((number, text.encode()) for number, text in self._numbered)
        with self._explained_quotes():
            next(records(lines, self._separator, self._reading.quotes, 0), None)

    @contextlib.contextmanager
    def _explained_quotes(self) -> Iterator[None]:
        try:
            yield
        except QuoteError as error:
            where = f"{self.path}, line {error.line}: a quote opens here and "
            where += (
                "is never closed"
                if error.closes is None
                else f"closes in line {error.closes}, after what look like rows of the table"
            )
            raise TableError(
                f"{where}. Close it or, if quotes are ordinary characters, use --no-quotes"
            ) from error

    def place(self, row: int) -> str:
        """Return the line of a row."""
        found = next(islice(self._records(), row, None), None)
        return super().place(row) if found is None else f"line {found.line}"

    def hint(self, names: Sequence[str]) -> str:
        """Return where the table may begin: at a later line with the names, or with more fields."""
        start = self._line_with(names) if names else None
        start = start or self._line_of_usual_width()
        if start is None:
            return ""
        first = self._numbered[0][1].lstrip("\ufeff \t")
        mark = next((mark for mark in COMMENTS if first.startswith(mark)), None)
        comment = f" or --comment {printable(mark)}" if mark else ""
        return f" The table seems to begin in line {start}: use --skip-rows {start - 1}{comment}"

    def _line_with(self, names: Sequence[str]) -> int | None:
        """The first line, after the header as read, that has these names as fields."""
        later = self._numbered[1:]
        best = best_separator("".join(text for _, text in later))
        for separator in dict.fromkeys((self._separator, best, *SEPARATORS)):
            for number, text in later:
                fields = [_squeezed(field) for field in fields_of(text, separator or ",")]
                wanted = columns_named(_squeezed(",".join(names)), fields)
                if set(wanted) <= set(fields):
                    return number
        return None

    def _line_of_usual_width(self) -> int | None:
        """The first line with as many fields as most lines have, if the header has others."""
        rows = [(number, fields_of(text, self._separator)) for number, text in self._numbered]
        rows = [(number, fields) for number, fields in rows if fields]
        usual = Counter(len(fields) for _, fields in rows).most_common(1)
        if not usual or usual[0][0] < 2 or len(rows[0][1]) == usual[0][0]:
            return None
        start, fields = next(row for row in rows if len(row[1]) == usual[0][0])
        holds_data = any(map(_is_number, fields))
        return None if holds_data else start  # the header itself has other fields than the rows

    def _ragged(self, row: Any) -> TableError:
        """Say which line has too few or too many fields, and what that may mean."""
        last: list[Record] = []
        found = None
        for record in self._records():
            if found is None and record.fields != len(self.columns):
                found = record
            if found is not None:
                last.append(record)
            if len(last) > LAST:
                break
        where = f", line {found.line}" if found else ""
        return TableError(
            f"{self.path}{where}: {row.actual_columns} fields where the header has "
            f"{row.expected_columns}: {cut(row.text)}.{self._way_out(row.text, last)}"
        )

    def _way_out(self, text: str, last: Sequence[Record]) -> str:
        hint = self.hint(())
        if hint:
            return hint
        mark = next((mark for mark in COMMENTS if text.lstrip().startswith(mark)), None)
        if mark:
            return f" If it is a comment, use --comment {printable(mark)}"
        if len({record.fields for record in last}) == 1:
            if len(last) <= LAST:
                return f" If the table ends before this line, use --skip-footer {len(last)}"
            return (
                f" All rows have {last[0].fields}: name each column in the header, and end neither "
                "the header nor the rows with a separator."
            )
        return f" Does an unquoted field contain the separator {printable(self._separator)}?"


def _head(path: Path, encoding: str | None) -> tuple[str, str]:
    """Return the first lines as text, and the encoding."""
    arrow = require("pyarrow", "reading a table")
    with explained(path), arrow.input_stream(str(path), compression="detect") as stream:
        data = stream.read(HEAD)
        while len(data) < BLOCK and not re.search(rb"[\r\n]", data) and (more := stream.read(HEAD)):
            data += more
    encoding = encoding or _encoding_of(data)
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise TableError(f"--encoding {encoding} is not a known encoding.") from error
    with explained(path):
        text = decoder.decode(data)
    if "\0" in text:
        hint = ""
        if text.count("\0") > 0.3 * len(text):
            hint = " If it is UTF-16, use --encoding utf-16-le or utf-16-be."
        raise TableError(f"{path} is not text; use CSV, TSV, Parquet or Feather.{hint}")
    return text.removeprefix("\ufeff"), encoding


def _encoding_of(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return "cp1252"  # what Windows programs write in Western Europe and America
    return "utf-8"


def _squeezed(name: str) -> str:
    """Return a name as it is when a list of names is split at its commas and joined again."""
    return re.sub(r"\s*,\s*", ",", name)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
