"""Lags of a fit, added to every table that is read for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_mvn.tables import Cells, Clock, Table, columns_named, lagged, lags_of

__all__ = ["kinds_of", "with_lags"]


def kinds_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return column → kind, from the values of `--as`."""
    return dict(entry.rpartition("=")[::2] for entry in options["kinds"])


def with_lags(table: Table, options: Mapping[str, Any], cells: Cells) -> Table:
    """Add the lags that a fit was asked for.

    Args:
        table: a table, as it is in its file.
        options: those of the fit, as `fit.json` keeps them.
        cells: rules for reading cells.

    Raises:
        TableError: the rows are not in the order of time, or columns with lags are missing.

    """
    columns = columns_named(options.get("lag_columns", ()), table.columns)
    lags = lags_of(columns, tuple(options.get("lags", ())))
    if lags is None:
        return table
    time = options["time"]
    return lagged(table, lags, Clock(time, kinds_of(options).get(time), cells))
