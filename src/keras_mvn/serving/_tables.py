"""Tables of other libraries, read as `pyarrow` tables and returned as they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mvn._core.optional import require

__all__ = ["as_arrow", "returned_like"]


def as_arrow(table: Any) -> Any:
    """Return a `pyarrow.Table`.

    Args:
        table: pandas DataFrame; pyarrow Table or RecordBatch; any other table with the Arrow stream
            interface, such as Polars'; or a mapping from names to arrays.

    Raises:
        TypeError: it is something else.

    """
    arrow = require("pyarrow", "predictions for tables")
    if isinstance(table, arrow.Table):
        return table
    if isinstance(table, arrow.RecordBatch):
        return arrow.Table.from_batches([table])
    if _is_pandas(table):
        return arrow.Table.from_pandas(table, preserve_index=False)
    try:
        if hasattr(table, "__arrow_c_stream__"):
            return arrow.table(table)
        if isinstance(table, Mapping):
            return arrow.table({name: _column(arrow, values) for name, values in table.items()})
    except arrow.ArrowInvalid as error:
        raise TypeError(
            f"Expected a table; this {type(table).__name__} is none: {error}"
        ) from error
    raise TypeError(
        f"Expected a table: a pandas DataFrame, an Arrow or Polars table, or a dict of arrays; "
        f"received {type(table).__name__}."
    )


def returned_like(table: Any, columns: dict[str, Any]) -> Any:
    """Return columns in the form of a table that was given: pandas, Arrow, or a dict of arrays."""
    arrow = require("pyarrow", "predictions for tables")
    if _is_pandas(table):
        return arrow.table(columns).to_pandas().set_axis(table.index)
    if isinstance(table, Mapping):
        return {
            name: values if isinstance(values, np.ndarray) else values.to_numpy()
            for name, values in columns.items()
        }
    return arrow.table(columns)


def _is_pandas(table: Any) -> bool:
    """Whether it is a DataFrame, without importing pandas."""
    return any(
        cls.__module__.split(".")[0] == "pandas" and cls.__name__ == "DataFrame"
        for cls in type(table).__mro__
    )


def _column(arrow: Any, values: Any) -> Any:
    """Return an array as an Arrow column; an array of several axes has no place in a table."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise TypeError(f"Columns must have one axis; received an array of shape {array.shape}.")
    return arrow.array(array.tolist() if array.dtype == object else array, from_pandas=True)
