"""Interpretation of the cells of a column: numbers, dates, booleans, categories, or missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = [
    "BOOLEANS",
    "DATE_FORMATS",
    "TIME_FORMATS",
    "Cells",
    "Values",
    "is_coded",
    "is_decimal_comma",
    "is_number",
    "is_temporal",
    "is_text",
]

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT", "?", "-", "."}
    | {"null", "NULL", "Null", "None", "none"}
)
"""Contents of cells that count as missing, in addition to those that the user declares."""

BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "off"), 0.0),
}

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


class Values(NamedTuple):
    """A column as numbers, NaN where missing, and a mask of the cells that could not be read."""

    numbers: Array
    unreadable: np.ndarray


@final
@dataclass(frozen=True)
class Cells:
    """Rules for reading cells.

    Args:
        decimal: str, the decimal point of numbers in text.
        missing: contents of cells that count as missing; "-200" also means -200.0.

    """

    decimal: str = "."
    missing: tuple[str, ...] = ()

    def texts(self, column: Any) -> Any:
        """Return the trimmed text of the cells, null where missing, as `pyarrow` strings."""
        arrow, compute = _arrow()
        kind = column.type
        if arrow.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        if arrow.types.is_floating(kind) and column.null_count < len(column):
            column = _whole_if_whole(column)
        if not arrow.types.is_string(column.type):
            column = column.cast(arrow.string())
        trimmed = compute.utf8_trim_whitespace(column)
        nothing = arrow.array(sorted(MISSING | set(self.missing)), arrow.string())
        return compute.if_else(compute.is_in(trimmed, nothing), None, trimmed)

    def categories(self, column: Any) -> Any:
        """Return the text of the cells as in `texts`, with codes such as 2.0 written as 2."""
        compute = _arrow()[1]
        return compute.replace_substring_regex(self.texts(column), r"^([+-]?\d+)\.0+$", r"\1")

    def numbers(self, column: Any) -> Values:
        """Return the numbers of a numeric column, or of a text column that holds numbers."""
        arrow, _ = _arrow()
        if is_number(column.type):
            numbers = np.array(column.cast(arrow.float64(), safe=False).to_numpy(False))
            return Values(self._declared(numbers.astype(np.float64)), np.zeros(len(numbers), bool))
        return self.parsed(self.texts(column)) if is_text(column.type) else _unreadable(column)

    def _declared(self, numbers: Array) -> Array:
        """Replace numbers declared missing with NaN."""
        declared = [float(text) for text in self.missing if _float(text) is not None]
        return np.where(np.isin(numbers, declared), np.nan, numbers) if declared else numbers

    def parsed(self, texts: Any) -> Values:
        """Parse numbers from the result of `texts`."""
        values = self._parsed_at_once(texts)
        return Values(self._declared(values.numbers), values.unreadable)

    def _parsed_at_once(self, texts: Any) -> Values:
        arrow, compute = _arrow()
        pointed = texts
        if self.decimal != ".":
            if compute.any(compute.match_substring(texts, ".")).as_py():  # thousands or decimal?
                return _each(texts, self._pointless)
            pointed = compute.replace_substring(texts, self.decimal, ".")
        try:
            numbers = pointed.cast(arrow.float64()).to_numpy(zero_copy_only=False)
        except arrow.ArrowInvalid:
            return _each(pointed, _float)
        return Values(np.array(numbers, dtype=np.float64), np.zeros(len(numbers), dtype=bool))

    def _pointless(self, text: str) -> float | None:
        return None if "." in text else _float(text.replace(self.decimal, "."))

    def truths(self, column: Any) -> Values:
        """Return 1 for true or yes, and 0 for false or no."""
        arrow, _ = _arrow()
        if arrow.types.is_boolean(column.type):
            return self.numbers(column)
        if not is_text(column.type):
            return _unreadable(column)
        return _each(self.texts(column), lambda text: BOOLEANS.get(text.casefold()))

    def instants(self, column: Any, form: str | None) -> Values:
        """Return dates as seconds since 1970, in UTC; `form` is the format of dates in text."""
        arrow, _ = _arrow()
        kind = column.type
        if arrow.types.is_date(kind) or arrow.types.is_timestamp(kind):
            stamps = column.cast(arrow.timestamp("us", getattr(kind, "tz", None)), safe=False)
            whole = stamps.cast(arrow.int64()).to_numpy(zero_copy_only=False)
            return Values(whole.astype(np.float64) * 1e-6, np.zeros(len(whole), dtype=bool))
        if form is None or not is_text(kind):
            return _unreadable(column)
        return _all(self.texts(column), lambda texts: _seconds(texts, form))

    def times_of_day(self, column: Any, form: str | None) -> Values:
        """Return times of day as seconds since midnight; `form` is the format of times in text."""
        arrow, _ = _arrow()
        if arrow.types.is_time(column.type):
            ticks = column.cast(arrow.time64("us"), safe=False).cast(arrow.int64())
            seconds = ticks.to_numpy(zero_copy_only=False).astype(np.float64) * 1e-6
            return Values(seconds, np.zeros(len(seconds), dtype=bool))
        if form is None or not is_text(column.type):
            return _unreadable(column)
        values = _all(self.texts(column), lambda texts: _seconds(texts, form))
        return Values(values.numbers % 86400.0, values.unreadable)


def _arrow() -> tuple[Any, Any]:
    return require("pyarrow", "reading a table"), require("pyarrow.compute", "reading a table")


def is_text(kind: Any) -> bool:
    """Whether cells of this `pyarrow` type are text, or category codes that are read as text."""
    types = _arrow()[0].types
    if is_coded(kind):
        return True
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def is_coded(kind: Any) -> bool:
    """Whether cells of this `pyarrow` type are numbers that the file declares to be categories."""
    return bool(_arrow()[0].types.is_dictionary(kind) and is_number(kind.value_type))


def is_decimal_comma(text: str) -> bool:
    """Whether `text` is a number if a comma is taken as its decimal point."""
    return re.fullmatch(r"[+-]?\d*,\d+([eE][+-]?\d+)?", text.strip()) is not None


def is_number(kind: Any) -> bool:
    """Whether cells of this `pyarrow` type are numbers, including booleans."""
    types = _arrow()[0].types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
    )


def is_temporal(kind: Any) -> bool:
    """Whether cells of this `pyarrow` type are dates or times of day."""
    types = _arrow()[0].types
    return bool(types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind))


def _whole_if_whole(column: Any) -> Any:
    """Restore category codes that became floats because of missing values: 3, not 3.0."""
    arrow, compute = _arrow()
    cleaned = compute.if_else(compute.is_nan(column), None, column)
    whole = compute.all(compute.equal(cleaned, compute.round(cleaned))).as_py()
    small = compute.all(compute.less(compute.abs(cleaned), 2.0**53)).as_py()
    return cleaned.cast(arrow.int64()) if whole and small else cleaned


def _unreadable(column: Any) -> Values:
    """The values of a column of an unsupported type: every cell that is present is unreadable."""
    present = column.is_valid().to_numpy(zero_copy_only=False)
    return Values(np.full(len(column), np.nan), present)


def _each(texts: Any, read: Callable[[str], float | None]) -> Values:
    """Apply `read` cell by cell, once for each distinct cell."""

    def many(different: list[str]) -> Array:
        found = [read(text) for text in different]
        return np.array([np.nan if number is None else number for number in found])

    return _all(texts, many)


def _all(texts: Any, read: Callable[[list[str]], Array]) -> Values:
    """Apply `read` to the distinct cells; NaN in its result marks a cell as unreadable."""
    coded = texts.dictionary_encode()
    different = coded.dictionary.to_pylist()
    numbers = np.append(read(different) if different else np.zeros(0), np.nan)
    codes = coded.indices.fill_null(len(different)).to_numpy(zero_copy_only=False)
    unreadable = np.isnan(numbers)
    unreadable[-1] = False
    return Values(numbers[codes], unreadable[codes])


def _float(text: str) -> float | None:
    """Parse a number; None for other text, and for what only Python accepts (1_000, nan)."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if "_" in text or np.isnan(number) else number


def _seconds(texts: list[str], form: str) -> Array:
    pandas = require("pandas", "reading dates")
    stamps = pandas.to_datetime(
        pandas.Series(texts, dtype=object), format=form, errors="coerce", utc=True
    )
    microseconds = stamps.astype("datetime64[us, UTC]").astype("int64").to_numpy()
    missing = stamps.isna().to_numpy()
    return np.asarray(np.where(missing, np.nan, microseconds * 1e-6), dtype=np.float64)
