"""The abstract table: named columns of a file, read as a stream of batches.

A file is never held in memory as a whole.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

from keras_mvn._core.optional import require
from keras_mvn.tables.errors import CellError, TableError, listed, unknown_columns

__all__ = ["COMPRESSED", "Table", "explained", "leading_unnamed"]

COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")


class Table(abc.ABC):
    """Named columns of a file, which can be read any number of times."""

    is_text: bool = False
    """Whether it has lines, some of which may be no part of the table."""
    derived: tuple[str, ...] = ()
    """Columns that are computed from others, such as lags."""
    history: int = 0
    """Number of first rows that lack values of earlier rows."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        notes: Sequence[str] = (),
        index: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.columns = tuple(columns)
        self._notes = tuple(notes)
        self.index = tuple(index)
        """Columns that only number or name the rows, such as the index of a data frame."""
        repeated = [name for name, count in Counter(self.columns).items() if count > 1]
        if repeated:
            raise TableError(
                f"{path}: several columns are called {listed(repeated)}; names must be unique."
                f"{self.hint(())}"
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was detected in the file, and what was left out of it so far, for display."""
        return self._notes

    @final
    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Iterate over `pyarrow.RecordBatch` objects with these columns, in this order; None: all.

        Raises:
            TableError: a column does not exist, or the file is truncated or cannot be parsed.

        """
        wanted = list(self.columns if columns is None else columns)
        self.require(wanted, str(self.path))
        with explained(self.path):
            yield from self._batches(wanted)
        require("pyarrow", "reading a table").default_memory_pool().release_unused()

    @final
    def require(self, names: Sequence[str], option: str) -> None:
        """Check that the table has these columns.

        Raises:
            TableError: it does not; the message names `option`, and what may help.

        """
        absent = [name for name in names if name not in self.columns]
        if absent:
            raise unknown_columns(absent, self.columns, option, self.hint(absent))

    @final
    @contextlib.contextmanager
    def located(self, first: int = 0) -> Iterator[None]:
        """Add to errors about a cell where it is in the file; `first` is the first row's number."""
        try:
            yield
        except CellError as error:
            raise error.at(f"{self.place(first + error.row)} of {self.path.name}") from error

    @final
    def no_rows(self, columns: Sequence[str]) -> Any:
        """Return a `pyarrow.RecordBatch` without rows, whose columns are typed as in `batches`."""
        arrow = require("pyarrow", "reading a table")
        types = self._types()
        columns = list(columns)
        arrays = [arrow.array([], types.get(name, arrow.string())) for name in columns]
        return arrow.RecordBatch.from_arrays(arrays, columns)

    def place(self, row: int) -> str:
        """Return where a row, counted from 0, is in the file: "row 7", or "line 9" of text."""
        return f"row {row + 1}"

    def hint(self, names: Sequence[str]) -> str:
        """Return what may help if these columns are missing: a sentence after a blank, or ""."""
        return ""

    @abc.abstractmethod
    def _batches(self, columns: list[str]) -> Iterator[Any]: ...

    def _types(self) -> dict[str, Any]:
        """Column → `pyarrow` type, for the columns that are not read as text."""
        return {}


def leading_unnamed(cells: Sequence[str]) -> list[str]:
    """Return the first names that pandas gives to an index that was saved, each time once more."""
    return list(itertools.takewhile(re.compile(r"Unnamed: \d+(\.\d+)*").fullmatch, cells))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
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
            message = "a row is longer than a megabyte"
        raise TableError(f"{path} cannot be read as a table: {message}") from error
