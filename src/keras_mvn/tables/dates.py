"""How dates and times of day are read: their formats, and their seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = [
    "DATE_FORMATS",
    "ISO",
    "TIME_FORMATS",
    "is_temporal",
    "seconds_of",
    "typed_instants",
    "typed_times_of_day",
]


ISO = "ISO8601"


_DAYS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d/%m/%y"),
    *("%m/%d/%y", "%d.%m.%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y"),
    "%B %d, %Y",
)


_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %H.%M.%S", " %I:%M %p", " %I:%M:%S %p")


DATE_FORMATS = (ISO, *(day + time for day in _DAYS for time in _TIMES))
"""Formats of dates, tried in this order; the first that reads every cell is used."""


TIME_FORMATS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%H.%M.%S", "%I:%M %p", "%I:%M:%S %p")
"""Formats of a time of day without a date."""


def is_temporal(kind: Any) -> bool:
    """Whether cells of this `pyarrow` type are dates or times of day."""
    types = require("pyarrow", "reading a table").types
    return bool(types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind))


def seconds_of(texts: list[str], form: str) -> Array:
    """Seconds since 1970, in UTC, of dates or times of day in this format; NaN for other text."""
    pandas = require("pandas", "reading dates")
    stamps = pandas.to_datetime(
        pandas.Series(texts, dtype=object), format=form, errors="coerce", utc=True
    )
    microseconds = stamps.astype("datetime64[us, UTC]").astype("int64").to_numpy()
    missing = stamps.isna().to_numpy()
    return np.asarray(np.where(missing, np.nan, microseconds * 1e-6), dtype=np.float64)


def typed_instants(column: Any) -> Array:
    """Seconds since 1970, in UTC, of a `pyarrow` column of dates or timestamps."""
    arrow = require("pyarrow", "reading a table")
    stamps = column.cast(arrow.timestamp("us", getattr(column.type, "tz", None)), safe=False)
    whole = stamps.cast(arrow.int64()).to_numpy(zero_copy_only=False)
    return np.asarray(whole.astype(np.float64) * 1e-6)


def typed_times_of_day(column: Any) -> Array:
    """Seconds since midnight of a `pyarrow` column of times."""
    arrow = require("pyarrow", "reading a table")
    ticks = column.cast(arrow.time64("us"), safe=False).cast(arrow.int64())
    return np.asarray(ticks.to_numpy(zero_copy_only=False).astype(np.float64) * 1e-6)
