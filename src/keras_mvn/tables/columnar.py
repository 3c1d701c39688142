"""Tables in Parquet and Feather files, which define the types of their columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from keras_mvn._core.optional import require
from keras_mvn.tables.errors import TableError
from keras_mvn.tables.table import COMPRESSED, Table, explained, leading_unnamed

__all__ = ["ColumnarTable"]

ROWS = 1 << 15
"""Rows read at a time."""


@final
class ColumnarTable(Table):
    """A Parquet or Feather file."""

    def __init__(self, path: Path, kind: str) -> None:
        self._kind = kind
        with explained(path), self._open(path) as file:
            schema = file.schema_arrow if kind == "parquet" else file.schema
        self._schema = schema
        super().__init__(path, schema.names, index=_index(schema))

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


def _index(schema: Any) -> list[str]:
    """Return the columns that were the index of the data frame that was written."""
    try:
        about = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        declared = [name for name in about.get("index_columns", []) if isinstance(name, str)]
    except (ValueError, AttributeError):  # not what pandas writes
        declared = []
    unnamed = [name for name in schema.names if name.startswith("__index_level_")]
    found = {*declared, *unnamed, *leading_unnamed(schema.names)}
    return [name for name in schema.names if name in found]
