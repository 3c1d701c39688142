"""Random sampling of rows from a table that is read in batches."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require

__all__ = ["RowSample"]

CELLS = 4_000_000
"""Maximum number of cells in a sample, which limits the rows taken from wide tables."""

ROWS = 20_000


@final
class RowSample:
    """Uniform sample of up to 20,000 rows, or fewer from a very wide table; all of a small one.

    Every row gets a random key; the rows with the smallest keys are kept. Which rows are drawn
    depends on the seed and the number of rows, but not on how they are divided into batches.

    Args:
        columns: int, number of columns.
        seed: int, seed of the random keys.
        most: int, maximum number of rows.

    """

    def __init__(self, columns: int, seed: int, most: int = ROWS) -> None:
        self._size = min(most, max(100, min(ROWS, CELLS // max(columns, 1))))
        self._random = np.random.default_rng(seed)
        self._kept: Any = None
        self._keys = np.zeros(0)
        self._rows = np.zeros(0, dtype=np.int64)
        self._count = 0

    def update(self, batch: Any) -> None:
        """Add the rows of a `pyarrow.RecordBatch`."""
        arrow = require("pyarrow", "reading a table")
        keys = self._random.random(batch.num_rows)
        rows = np.arange(self._count, self._count + batch.num_rows)
        self._count += batch.num_rows
        limit = self._keys.max() if len(self._keys) == self._size else np.inf
        candidates = np.flatnonzero(keys < limit)
        if not len(candidates):
            return
        fresh = arrow.Table.from_batches([batch.take(arrow.array(candidates))])
        table = fresh if self._kept is None else arrow.concat_tables([self._kept, fresh])
        keys = np.concatenate([self._keys, keys[candidates]])
        rows = np.concatenate([self._rows, rows[candidates]])
        order = np.sort(np.argsort(keys, kind="stable")[: self._size])
        self._kept = table.take(arrow.array(order)).combine_chunks()
        self._keys, self._rows = keys[order], rows[order]

    @property
    def table(self) -> Any:
        """The sampled rows, as a `pyarrow.Table`; None before the first row."""
        return self._kept

    def among(self, rows: np.ndarray) -> Any:
        """Return a `pyarrow.Table` of the sampled rows whose row numbers are in `rows`."""
        arrow = require("pyarrow", "reading a table")
        return self._kept.take(arrow.array(np.flatnonzero(np.isin(self._rows, rows))))

    def rows_among(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of the rows that `among` returns."""
        return np.asarray(self._rows[np.isin(self._rows, rows)])
