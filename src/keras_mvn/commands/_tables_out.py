"""Predictions as a table in a file, written batch by batch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_mvn._optional import require
from keras_mvn.commands._console import RefusalError
from keras_mvn.commands._folder import replaced_at_the_end

__all__ = ["frame_writer"]

SUFFIXES = (".csv", ".tsv", ".parquet", ".feather")


@contextlib.contextmanager
def frame_writer(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """A function that takes data frames one after another; None: CSV on stdout.

    Raises:
        RefusalError: a suffix that is none of a table, or a file that cannot be written.

    """
    if path is None:
        yield _text_writer(sys.stdout)
        return
    suffixes = [s for s in path.suffixes if s in (*SUFFIXES, ".gz")]
    if not suffixes or path.suffix not in (*SUFFIXES, ".gz"):
        raise RefusalError(f"--out {path}: expected a file *{', *'.join(SUFFIXES)} or *.csv.gz.")
    if path.is_dir():
        raise RefusalError(f"--out {path} is a folder; give a file, such as {path}/predictions.csv")
    with replaced_at_the_end(path) as fresh, contextlib.ExitStack() as closing:
        if path.suffix in (".parquet", ".feather"):
            yield _columnar_writer(fresh, path.suffix, closing)
            return
        if path.suffix == ".gz":
            import gzip

            stream: Any = closing.enter_context(gzip.open(fresh, "wt", encoding="utf-8"))
        else:
            stream = closing.enter_context(fresh.open("w", encoding="utf-8", newline=""))
        yield _text_writer(stream, "\t" if suffixes[0] == ".tsv" else ",")


def _text_writer(stream: Any, separator: str = ",") -> Callable[[Any], None]:
    first = True

    def write(frame: Any) -> None:
        nonlocal first
        frame.to_csv(stream, sep=separator, header=first, index=False, float_format="%.9g")
        first = False

    return write


def _columnar_writer(
    path: Path, suffix: str, closing: contextlib.ExitStack
) -> Callable[[Any], None]:
    arrow = require("pyarrow", "writing a table")
    parquet = require("pyarrow.parquet", "writing a table")
    writer: Any = None

    def write(frame: Any) -> None:
        nonlocal writer
        table = arrow.Table.from_pandas(frame, preserve_index=False)
        if writer is None:
            if suffix == ".parquet":
                made = parquet.ParquetWriter(path, table.schema)
            else:
                made = arrow.ipc.new_file(str(path), table.schema)
            writer = closing.enter_context(made)
        writer.write_table(table)

    return write
