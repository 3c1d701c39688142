"""Interpretation of the cells of a column: numbers, dates, booleans, categories, or missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.dates import seconds_of, typed_instants, typed_times_of_day

__all__ = ["BOOLEANS", "Cells", "Values", "is_coded", "is_decimal_comma", "is_number", "is_text"]

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT", "?", "-", "."}
    | {"null", "NULL", "Null", "None", "none"}
)
"""Contents of cells that count as missing, in addition to those that the user declares."""

BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "off"), 0.0),
}


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
            return Values(typed_instants(column), np.zeros(len(column), dtype=bool))
        if form is None or not is_text(kind):
            return _unreadable(column)
        return _all(self.texts(column), lambda texts: seconds_of(texts, form))

    def times_of_day(self, column: Any, form: str | None) -> Values:
        """Return times of day as seconds since midnight; `form` is the format of times in text."""
        arrow, _ = _arrow()
        if arrow.types.is_time(column.type):
            return Values(typed_times_of_day(column), np.zeros(len(column), dtype=bool))
        if form is None or not is_text(column.type):
            return _unreadable(column)
        values = _all(self.texts(column), lambda texts: seconds_of(texts, form))
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
