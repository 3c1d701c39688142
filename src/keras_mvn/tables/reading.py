"""Opening tables of any supported format."""

from __future__ import annotations

from pathlib import Path

from keras_mvn.tables.columnar import ColumnarTable
from keras_mvn.tables.errors import TableError
from keras_mvn.tables.table import COMPRESSED, Table, explained
from keras_mvn.tables.text import Reading, TextTable

__all__ = ["open_table"]

COLUMNAR = {".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather"}
SEPARATOR_OF = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")


def open_table(path: str | Path, reading: Reading | None = None) -> Table:
    """Open a table: CSV, TSV or other text, compressed or not, Parquet or Feather.

    Args:
        path: path of the file; its suffix determines the format, and the separator of `.csv` and
            `.tsv`.
        reading: how text is to be read, as far as it is not detected.

    Raises:
        TableError: the file does not exist, cannot be read as a table, or repeats a column name.
        ImportError: pyarrow is not installed.

    """
    file = Path(path)
    with explained(file), file.open("rb"):
        pass
    suffix = _suffix(file)
    if suffix in SPREADSHEETS:
        raise TableError(f"{file}: spreadsheets are not supported; save it as CSV.")
    if suffix in COLUMNAR:
        return ColumnarTable(file, COLUMNAR[suffix])
    return TextTable(file, reading or Reading(), SEPARATOR_OF.get(suffix))


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""
