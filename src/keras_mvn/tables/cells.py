"""Interpretation of the cells of a column: numbers, dates, booleans, categories, or missing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.dates import DateReading, seconds_of, typed_instants, typed_times_of_day
from keras_mvn.tables.numerals import LIMIT, Numerals, float_of
from keras_mvn.tables.spellings import MISSING_NUMBERS, MISSING_TEXTS

__all__ = ["BOOLEANS", "Cells", "Values", "is_coded", "is_number", "is_text"]

BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "off"), 0.0),
}


class Values(NamedTuple):
    """A column as numbers, NaN where missing, and a mask of the cells that could not be read."""

    numbers: Array
    unreadable: np.ndarray


ISO_DATES = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
)
"""Formats of dates in text, where training rows had typed ones, as in a Parquet file."""

ISO_TIMES = ("%H:%M:%S", "%H:%M")
"""Formats of times of day in text, where training rows had typed ones."""


@final
@dataclass(frozen=True)
class Cells:
    """Rules for reading cells.

    Args:
        decimal: str, the decimal mark of numbers in text.
        missing: contents of cells that count as missing; "-200" also means -200.0.
        thousands: str, the separator of thousands, a key of `numerals.THOUSANDS`; "" for none.
        strip: texts beside a number that are ignored, such as "%" or "°C".
        accounting: bool, whether numbers in parentheses are negative.
        limits_as_missing: bool, whether limits such as <0.05 count as missing.
        dates: how dates are read.

    """

    decimal: str = "."
    missing: tuple[str, ...] = ()
    thousands: str = ""
    strip: tuple[str, ...] = ()
    accounting: bool = False
    limits_as_missing: bool = False
    dates: DateReading = field(default_factory=DateReading)

    @functools.cached_property
    def numerals(self) -> Numerals:
        """How numbers in text are written."""
        return Numerals(self.decimal, self.thousands, self.strip, self.accounting)

    def texts(self, column: Any) -> Any:
        """Return the trimmed text of the cells, null where missing, as `pyarrow` strings."""
        arrow, compute = _arrow()
        trimmed = self._trimmed(column)
        nothing = arrow.array(sorted(MISSING_TEXTS | set(self.missing)), arrow.string())
        return compute.if_else(compute.is_in(trimmed, nothing), None, trimmed)

    def values(self, column: Any) -> Any:
        """Return what `texts` does, null for all that means missing among numbers and dates."""
        arrow, compute = _arrow()
        trimmed = self._trimmed(column)
        nothing = arrow.array(sorted(MISSING_NUMBERS), arrow.string())
        declared = arrow.array(sorted(self.missing), arrow.string())
        gap = compute.or_(
            compute.is_in(compute.utf8_lower(trimmed), nothing), compute.is_in(trimmed, declared)
        )
        if self.limits_as_missing:
            gap = compute.or_(gap, compute.match_substring_regex(trimmed, f"^{LIMIT.pattern}"))
        return compute.if_else(gap, None, trimmed)

    def _trimmed(self, column: Any) -> Any:
        arrow, compute = _arrow()
        kind = column.type
        if arrow.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        if arrow.types.is_floating(kind) and column.null_count < len(column):
            column = _whole_if_whole(column)
        if not arrow.types.is_string(column.type):
            column = column.cast(arrow.string())
        return compute.utf8_trim_whitespace(column)

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
        return self.parsed(self.values(column)) if is_text(column.type) else _unreadable(column)

    def _declared(self, numbers: Array) -> Array:
        """Replace numbers declared missing with NaN."""
        found = [self.numerals.number(text) for text in self.missing]
        declared = [number for number in found if number is not None]
        return np.where(np.isin(numbers, declared), np.nan, numbers) if declared else numbers

    def parsed(self, values: Any) -> Values:
        """Parse numbers from the result of `values`."""
        found = self._parsed_at_once(values)
        return Values(self._declared(found.numbers), found.unreadable)

    def _parsed_at_once(self, values: Any) -> Values:
        arrow, compute = _arrow()
        pointed = values
        if not self.numerals.plain:
            if (
                self.numerals != Numerals(",")
                or compute.any(compute.match_substring(values, ".")).as_py()
            ):
                return _each(values, self.numerals.number)
            pointed = compute.replace_substring(values, ",", ".")
        try:
            numbers = pointed.cast(arrow.float64()).to_numpy(zero_copy_only=False)
        except arrow.ArrowInvalid:
            return _each(values, self.numerals.number)
        return Values(np.array(numbers, dtype=np.float64), np.zeros(len(numbers), dtype=bool))

    def truths(self, column: Any) -> Values:
        """Return 1 for true, yes or 1, and 0 for false, no or 0."""
        arrow, _ = _arrow()
        if arrow.types.is_boolean(column.type):
            return self.numbers(column)
        if is_number(column.type):
            numbers = self.numbers(column).numbers
            neither = ~(np.isnan(numbers) | (numbers == 0.0) | (numbers == 1.0))
            return Values(np.where(neither, np.nan, numbers), neither)
        if not is_text(column.type):
            return _unreadable(column)
        return _each(self.values(column), _truth)

    def instants(self, column: Any, form: str | None) -> Values:
        """Return dates as seconds since 1970, in UTC.

        `form` is the format of dates in text; None, if the column was typed, for ISO 8601.
        """
        arrow, _ = _arrow()
        kind = column.type
        if arrow.types.is_date(kind) or arrow.types.is_timestamp(kind):
            return Values(typed_instants(column), np.zeros(len(column), dtype=bool))
        if not (is_text(kind) or (form is not None and is_number(kind))):
            return _unreadable(column)
        return self._timed(column, ISO_DATES if form is None else self.dates.tried(form))

    def times_of_day(self, column: Any, form: str | None) -> Values:
        """Return times of day as seconds since midnight; `form` is the format of times in text."""
        arrow, _ = _arrow()
        if arrow.types.is_time(column.type):
            return Values(typed_times_of_day(column), np.zeros(len(column), dtype=bool))
        if not is_text(column.type):
            return _unreadable(column)
        values = self._timed(column, ISO_TIMES if form is None else self.dates.tried(form))
        return Values(values.numbers % 86400.0, values.unreadable)

    def _timed(self, column: Any, forms: tuple[str, ...]) -> Values:
        """Read dates or times by the first of these formats that fits."""

        def seconds(texts: list[str]) -> Array:
            found = seconds_of(texts, forms[0])
            for other in forms[1:]:
                left = np.flatnonzero(np.isnan(found))
                if len(left):
                    found[left] = seconds_of([texts[i] for i in left], other)
            return found

        return _all(self.values(column), seconds)


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


def is_number(kind: Any) -> bool:
    """Whether cells of this `pyarrow` type are numbers, including booleans."""
    types = _arrow()[0].types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
    )


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


def _truth(text: str) -> float | None:
    found = BOOLEANS.get(text.casefold())
    if found is not None:
        return found
    number = float_of(text)
    return number if number in (0.0, 1.0) else None
