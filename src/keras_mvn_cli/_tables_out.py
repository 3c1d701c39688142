"""Writers of predictions to a table file, batch by batch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_mvn._core.files import replacing
from keras_mvn._core.optional import require
from keras_mvn_cli._console import RefusalError

__all__ = ["Write", "frame_writer"]

TEXT = {".csv": ",", ".tsv": "\t"}
COLUMNAR = (".parquet", ".feather")

Write = Callable[[Any, Mapping[str, Any]], None]
"""Takes a data frame of predictions, and columns to put first: name → `pyarrow` array."""


@contextlib.contextmanager
def frame_writer(path: Path | None) -> Iterator[Write]:
    """Yield a function that writes one batch after another; without a path, as CSV to stdout.

    Raises:
        RefusalError: the suffix is not that of a table, or the file cannot be written.

    """
    if path is None:
        yield _text_writer(sys.stdout, ",")
        return
    suffix, packed = _format_of(path)
    if path.is_dir():
        raise RefusalError(f"--out {path} is a folder; give a file, such as {path}/predictions.csv")
    with contextlib.ExitStack() as closing:
        try:
            fresh = closing.enter_context(replacing(path))
        except OSError as error:
            raise RefusalError(f"--out {path}: {error.strerror}") from error
        if suffix in COLUMNAR:
            yield _columnar_writer(fresh, suffix, closing)
            return
        if packed:
            import gzip

            stream: Any = closing.enter_context(gzip.open(fresh, "wt", encoding="utf-8"))
        else:
            stream = closing.enter_context(fresh.open("w", encoding="utf-8", newline=""))
        yield _text_writer(stream, TEXT[suffix])


def _format_of(path: Path) -> tuple[str, bool]:
    """Return the suffix that sets the format, and whether to compress the whole file."""
    packed = path.suffix == ".gz"
    suffix = path.with_suffix("").suffix if packed else path.suffix
    if suffix not in TEXT and (packed or suffix not in COLUMNAR):
        raise RefusalError(
            f"--out {path}: expected a file *{', *'.join([*TEXT, *COLUMNAR])}, or compressed text, "
            "*.csv.gz or *.tsv.gz."
        )
    return suffix, packed


def _text_writer(stream: Any, separator: str) -> Write:
    first = True

    def write(frame: Any, kept: Mapping[str, Any]) -> None:
        nonlocal first
        # As text, which `float_format` leaves alone: identifiers may have more than 9 digits.
        for i, (name, column) in enumerate(kept.items()):
            frame.insert(i, name, _texts(column))
        frame.to_csv(stream, sep=separator, header=first, index=False, float_format="%.9g")
        first = False

    return write


def _texts(column: Any) -> Any:
    """Return the cells exactly as a text table should show them; None if empty."""
    pandas = require("pandas", "writing a table")
    arrow = require("pyarrow", "writing a table")
    try:
        texts = column.cast(arrow.string()).to_pylist()
    except (arrow.ArrowNotImplementedError, arrow.ArrowInvalid):  # a list, or not UTF-8 text
        texts = [None if cell is None else str(cell) for cell in column.to_pylist()]
    if arrow.types.is_floating(column.type):
        texts = [None if text == "nan" else text for text in texts]
    return pandas.Series(texts, dtype=object)


def _columnar_writer(path: Path, suffix: str, closing: contextlib.ExitStack) -> Write:
    arrow = require("pyarrow", "writing a table")
    parquet = require("pyarrow.parquet", "writing a table")
    writer: Any = None

    def write(frame: Any, kept: Mapping[str, Any]) -> None:
        nonlocal writer
        table = arrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        for i, (name, column) in enumerate(kept.items()):
            if arrow.types.is_dictionary(column.type):  # the dictionary differs between batches
                column = column.cast(column.type.value_type)
            table = table.add_column(i, arrow.field(name, column.type), column)
        if writer is None:
            if suffix == ".parquet":
                made = parquet.ParquetWriter(path, table.schema)
            else:
                made = arrow.ipc.new_file(str(path), table.schema)
            writer = closing.enter_context(made)
        writer.write_table(table)

    return write
