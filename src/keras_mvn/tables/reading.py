"""Tables in files, read as streams of batches: a file is never held in memory as a whole.

Text files are read as text, so that all cells of a column decide what it is, not just those in the
first block. Parquet and Feather files define their own types.
"""

from __future__ import annotations

import abc
import codecs
import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from keras_mvn._core.optional import require
from keras_mvn.tables.errors import TableError, listed, unknown_columns
from keras_mvn.tables.separators import best_separator, header_of, printable

__all__ = ["ColumnarTable", "Reading", "Table", "TextTable", "open_table"]

BLOCK = 1 << 20
"""Bytes of text parsed at a time."""

ROWS = 1 << 15
"""Rows of a columnar file read at a time."""

HEAD = 1 << 18
"""Bytes from which encoding, separator and header are detected; more if the header is longer."""

COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
COLUMNAR = {".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather"}
SEPARATOR_OF = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")


@final
@dataclass(frozen=True)
class Reading:
    """Separator and encoding of a text table; None: detect it."""

    separator: str | None = None
    encoding: str | None = None


class Table(abc.ABC):
    """Named columns of a file, which can be read any number of times."""

    def __init__(self, path: Path, columns: Sequence[str], notes: Sequence[str] = ()) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.notes = tuple(notes)
        """Properties of the file that were detected, as text for display."""
        repeated = [name for name, count in Counter(self.columns).items() if count > 1]
        if repeated:
            raise TableError(
                f"{path}: several columns are called {listed(repeated)}; names must be unique."
            )

    @final
    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Iterate over `pyarrow.RecordBatch` objects with these columns, in this order; None: all.

        Raises:
            TableError: a column does not exist, or the file is truncated or cannot be parsed.

        """
        wanted = list(self.columns if columns is None else columns)
        absent = [name for name in wanted if name not in self.columns]
        if absent:
            raise unknown_columns(absent, self.columns, str(self.path))
        with _explained(self.path):
            yield from self._batches(wanted)
        require("pyarrow", "reading a table").default_memory_pool().release_unused()

    @final
    def no_rows(self, columns: Sequence[str]) -> Any:
        """Return a `pyarrow.RecordBatch` without rows, whose columns are typed as in `batches`."""
        arrow = require("pyarrow", "reading a table")
        types = self._types()
        columns = list(columns)
        arrays = [arrow.array([], types.get(name, arrow.string())) for name in columns]
        return arrow.RecordBatch.from_arrays(arrays, columns)

    @abc.abstractmethod
    def _batches(self, columns: list[str]) -> Iterator[Any]: ...

    def _types(self) -> dict[str, Any]:
        """Column → `pyarrow` type, for the columns that are not read as text."""
        return {}


@final
class TextTable(Table):
    """A text file with a header; every column is read as text."""

    def __init__(self, path: Path, reading: Reading) -> None:
        head, encoding = _head(path, reading.encoding)
        notes = [] if encoding == "utf-8" else [f"encoding {encoding}"]
        separator = reading.separator or SEPARATOR_OF.get(_suffix(path))
        best = best_separator(head)
        if separator is None:
            separator = best or ","
            if best:
                notes.append(f"separator {printable(separator)}")
        names, self._header_lines = header_of(head, separator)
        if not names:
            raise TableError(f"{path} is empty: a table needs a header and rows.")
        if len(names) == 1 and best not in (None, separator):
            raise TableError(
                f"{path}: with the separator {printable(separator)} there is only one column, "
                f"{names[0][:60]!r}. The lines look separated by {printable(best or '')}; use "
                f"--separator {printable(best or '')}"
            )
        if all(_is_number(name) for name in names):
            raise TableError(
                f"{path}: the first line, {listed(names)}, looks like data; it must hold the "
                "column names."
            )
        self._separator, self._encoding = separator, encoding
        super().__init__(path, names, notes)

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        arrow, text = require("pyarrow", "reading a table"), require("pyarrow.csv", "reading")
        ragged: list[Any] = []

        def refuse(row: Any) -> str:
            ragged.append(row)
            return "error"

        try:
            with (
                arrow.input_stream(str(self.path), compression="detect") as stream,
                text.open_csv(
                    stream,
                    read_options=text.ReadOptions(
                        block_size=BLOCK,
                        use_threads=False,
                        column_names=list(self.columns),
                        skip_rows=self._header_lines,
                        encoding=self._encoding,
                    ),
                    parse_options=text.ParseOptions(
                        delimiter=self._separator,
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

    def _ragged(self, row: Any) -> TableError:
        where = "" if row.number is None else f", line {row.number}"
        return TableError(
            f"{self.path}{where}: {row.actual_columns} fields where the header has "
            f"{row.expected_columns}: {row.text[:60]!r}. Does an unquoted "
            f"field contain the separator {printable(self._separator)}?"
        )


@final
class ColumnarTable(Table):
    """A Parquet or Feather file."""

    def __init__(self, path: Path, kind: str) -> None:
        self._kind = kind
        with _explained(path), self._open(path) as file:
            schema = file.schema_arrow if kind == "parquet" else file.schema
        self._schema = schema
        super().__init__(path, schema.names)

    def _types(self) -> dict[str, Any]:
        return {field.name: _usual(field.type) for field in self._schema}

    @staticmethod
    def _refuse_compressed(path: Path) -> None:
        if path.suffix.lower() in COMPRESSED:
            raise TableError(
                f"{path}: unpack it first; Parquet and Feather files are compressed internally."
            )

    def _open(self, path: Path) -> Any:
        self._refuse_compressed(path)
        if self._kind == "parquet":
            return require("pyarrow.parquet", "reading a table").ParquetFile(path)
        return require("pyarrow", "reading a table").ipc.open_file(str(path))

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        with self._open(self.path) as file:
            if self._kind == "parquet":
                yield from map(_as_usual, file.iter_batches(ROWS, columns=columns))
                return
            for i in range(file.num_record_batches):
                batch = file.get_batch(i).select(columns)
                for start in range(0, batch.num_rows, ROWS):
                    yield _as_usual(batch.slice(start, ROWS))


def _usual(kind: Any) -> Any:
    """Replace string views by strings, since few pyarrow functions support views."""
    arrow = require("pyarrow", "reading a table")
    return arrow.string() if arrow.types.is_string_view(kind) else kind


def _as_usual(batch: Any) -> Any:
    types = [_usual(kind) for kind in batch.schema.types]
    if types == batch.schema.types:
        return batch
    arrow = require("pyarrow", "reading a table")
    columns = [c if c.type == k else c.cast(k) for c, k in zip(batch.columns, types, strict=True)]
    return arrow.RecordBatch.from_arrays(columns, batch.schema.names)


def open_table(path: str | Path, reading: Reading | None = None) -> Table:
    """Open a table: CSV, TSV or other text, compressed or not, Parquet or Feather.

    Args:
        path: path of the file; its suffix determines the format, and the separator of `.csv` and
            `.tsv`.
        reading: separator and encoding of text, if known.

    Raises:
        TableError: the file does not exist, cannot be read as a table, or repeats a column name.
        ImportError: pyarrow is not installed.

    """
    file = Path(path)
    with _explained(file), file.open("rb"):
        pass
    suffix = _suffix(file)
    if suffix in SPREADSHEETS:
        raise TableError(f"{file}: spreadsheets are not supported; save it as CSV.")
    if suffix in COLUMNAR:
        return ColumnarTable(file, COLUMNAR[suffix])
    return TextTable(file, reading or Reading())


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert errors of the system and of pyarrow to one-line errors that name the file."""
    arrow = require("pyarrow", "reading a table")
    try:
        yield
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path} is not {error.encoding} text; specify the encoding, e.g. --encoding latin-1."
        ) from error
    except arrow.ArrowException as error:
        message = str(error).splitlines()[0]
        if "UTF8" in message:
            message += "; specify the encoding, e.g. --encoding latin-1."
        if "straddling" in message:
            message = f"a row is longer than {BLOCK} bytes; is a quote not closed?"
        raise TableError(f"{path} cannot be read as a table: {message}") from error


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _head(path: Path, encoding: str | None) -> tuple[str, str]:
    """Return the first lines as text, and the encoding."""
    arrow = require("pyarrow", "reading a table")
    with _explained(path), arrow.input_stream(str(path), compression="detect") as stream:
        data = stream.read(HEAD)
        while len(data) < BLOCK and not re.search(rb"[\r\n]", data) and (more := stream.read(HEAD)):
            data += more
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise TableError(f"{path} is not text; use CSV, TSV, Parquet or Feather.")
    encoding = encoding or _encoding_of(data)
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise TableError(f"--encoding {encoding} is not a known encoding.") from error
    with _explained(path):
        text = decoder.decode(data)
    return text.removeprefix("\ufeff"), encoding


def _encoding_of(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return "cp1252"  # what Windows programs write in Western Europe and America
    return "utf-8"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
