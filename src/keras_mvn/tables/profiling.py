"""Profiles of columns, from one pass over all of their cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.cells import (
    Cells,
    Values,
    is_coded,
    is_number,
    is_text,
)
from keras_mvn.tables.dates import DateReading, has_shape, is_temporal, seconds_of, shape_of
from keras_mvn.tables.errors import cut
from keras_mvn.tables.obstacles import either, obstacle

__all__ = ["FEW_STRAYS", "MANY", "TEMPORAL", "Candidate", "Profile", "profiles_of"]

MANY = 10_000
"""Maximum number of distinct texts stored; a column with more is text or an identifier."""

FEW_STRAYS = 5
"""Number of different texts up to which they are codes among numbers, whatever their share."""

MOST_STRAYS = 100
"""Number of different unreadable cells that are counted."""

SENTINELS = (
    *(-999.0, -9999.0, -99999.0, -999999.0, 999.0, 9999.0, 99999.0, 999999.0, -99.0, 99.0),
    *(-999.9, -99.9, 1e20, 9.96921e36, -3.4e38, -3.40282e38, -3.4028234663852886e38, 1e30, -1e30),
)
"""Numbers that data loggers and formats write for missing values."""

SHAPED = 1000
"""Number of cells whose shapes decide which formats may be those of dates at all."""

PROBED = 50
"""Number of cells that decide which date formats are worth trying on all cells."""

TEMPORAL = ("date", "time of day")
"""Kinds whose cells have a format."""


Reader = Callable[[Any], Values]
"""Function that reads the cells of a column as numbers."""


@final
@dataclass
class Candidate:
    """One way to read a column, and how well it has worked so far."""

    read: Reader
    readable: int = 0
    unreadable: int = 0
    example: tuple[str, int] | None = None
    """The first unreadable cell, and its row."""
    strays: Counter[str] = field(default_factory=Counter)
    """Counts of the different unreadable cells, as long as they are few."""
    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    """Whether all numbers so far were whole."""
    total: float = 0.0
    """The sum of the numbers."""
    sentinels: Counter[float] = field(default_factory=Counter)
    """Counts of numbers that often mean "missing"."""
    inner_low: float = np.inf
    inner_high: float = -np.inf
    """The range of all other numbers."""
    infinite: int | None = None
    """The first row with an infinite number."""

    def update(self, column: Any, rows: np.ndarray) -> Array:
        """Read the cells of further rows; return the numbers."""
        numbers, unreadable = self.read(column)
        present = ~np.isnan(numbers)
        self.readable += int(present.sum())
        self.unreadable += int(unreadable.sum())
        if self.example is None and unreadable.any():
            at = int(np.argmax(unreadable))
            self.example = str(column[at].as_py()), int(rows[at])
        if unreadable.any() and len(self.strays) <= MOST_STRAYS:
            arrow = require("pyarrow", "reading a table")
            compute = require("pyarrow.compute", "reading a table")
            bad = column.take(arrow.array(np.flatnonzero(unreadable)))
            for entry in compute.value_counts(bad).to_pylist():
                self.strays[str(entry["values"])] += entry["counts"]
        finite = np.isfinite(numbers)
        if self.infinite is None and (present & ~finite).any():
            self.infinite = int(rows[np.argmax(present & ~finite)])
        if finite.any():
            self.whole = self.whole and bool((numbers[finite] % 1 == 0).all())
            self.low = min(self.low, float(numbers[finite].min()))
            self.high = max(self.high, float(numbers[finite].max()))
            with np.errstate(over="ignore"):
                self.total += float(numbers[finite].sum())
            self._watch(numbers[finite])
        return numbers

    def _watch(self, numbers: Array) -> None:
        """Count numbers that often mean "missing", and note the range of the others."""
        often = np.isin(numbers, SENTINELS)
        for number, count in zip(*np.unique(numbers[often], return_counts=True), strict=True):
            self.sentinels[float(number)] += int(count)
        if not often.all():
            self.inner_low = min(self.inner_low, float(numbers[~often].min()))
            self.inner_high = max(self.inner_high, float(numbers[~often].max()))

    @property
    def suspicious(self) -> float | None:
        """A number such as -999, far from all others, that may mean "missing", or None."""
        span = self.inner_high - self.inner_low
        for number in self.sentinels:
            distance = max(number - self.inner_high, self.inner_low - number)
            if span > 0 and distance > 3.0 * max(span, abs(self.inner_high), abs(self.inner_low)):
                return number
        return None

    def is_permutation(self, rows: int) -> bool:
        """Whether the numbers are those of the rows, from 0 or 1, in any order."""
        if not self.whole or self.readable != rows or self.low not in (0.0, 1.0):
            return False
        return self.high - self.low + 1 == rows and self.total == (self.low + self.high) * rows / 2

    @property
    def hopeless(self) -> bool:
        """Whether so many and such different cells were unreadable that they are not errors."""
        return self.unreadable > 20 and self.unreadable > 0.5 * self.readable and self.diverse

    @property
    def diverse(self) -> bool:
        """Whether there were too many different unreadable cells to count them."""
        return len(self.strays) > MOST_STRAYS


@final
@dataclass
class Profile:
    """Statistics of one column from the rows read so far."""

    name: str
    cells: Cells
    asked: str | None = None
    """The kind that was asked for, if any."""
    rows: int = 0
    present: int = 0
    """Number of cells that hold a number, a date or another text that does not mean missing."""
    worded: int = 0
    """Number of cells that hold a text; among categories, "NA" and "None" are some."""
    type_name: str = ""
    number: Candidate | None = None
    """The column read as numbers; None if its type holds none."""
    forms: dict[tuple[str, str], Candidate] | None = None
    """(kind, format) of dates and times → its candidate; None until a cell needs one."""
    seen: Counter[str] = field(default_factory=Counter)
    """Counts of distinct texts, in the batches in which not all cells were numbers."""
    words: Counter[str] = field(default_factory=Counter)
    """Counts of texts that mean something among categories, and "missing" among numbers."""
    many: bool = False
    """Whether there were more distinct texts than are stored."""
    coded: bool = False
    """Whether the file declares its numbers to be categories."""
    counting: bool = True
    """Whether the column has equaled the row number so far."""
    marked: int = 0
    """Number of cells with the decimal mark in text, while it may separate thousands in all."""
    either: int = 0
    """Number of those in which it could separate thousands just as well."""
    short: int = 0
    """Number of cells without a mark that hold whole numbers below 1000."""
    affixed: Counter[str] = field(default_factory=Counter)
    """Counts of the texts beside numbers that are ignored."""

    def update(self, column: Any, rows: np.ndarray) -> np.ndarray:
        """Read the cells of further rows; return a mask of those that are present."""
        self.rows += len(column)
        self.type_name = str(column.type)
        self.coded = is_coded(column.type)
        if is_number(column.type):
            present = self._read_numbers(self.cells.numbers, column, rows)
            if self.asked in TEMPORAL:
                self._read_forms(column, rows, present)
            self.worded += int(present.sum())
        elif is_text(column.type):
            present = self._read_texts(column, rows)
        else:
            present = np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
            if is_temporal(column.type):
                self._read_forms(column, rows, present)
        self.present += int(present.sum())
        return present

    def _read_numbers(self, read: Reader, column: Any, rows: np.ndarray) -> np.ndarray:
        if self.number is None:
            self.number = Candidate(read)
        numbers = self.number.update(column, rows)
        if self.counting:
            steps = numbers - rows
            self.counting = bool(np.isin(steps, (0.0, 1.0)).all() and np.ptp(steps) == 0)
        return ~np.isnan(numbers)

    def _read_texts(self, column: Any, rows: np.ndarray) -> np.ndarray:
        values = self.cells.values(column)
        present = np.asarray(values.is_valid().to_numpy(zero_copy_only=False))
        self._read_words(self.cells.texts(column), values)
        if self.number is None or not self.number.hopeless:
            before = 0 if self.number is None else self.number.unreadable
            of_numbers = self._read_numbers(self.cells.parsed, values, rows)
            self._read_marks(values)
            self._read_affixes(values)
            all_read = self.number is not None and self.number.unreadable == before
            if all_read and self.asked not in TEMPORAL:
                return of_numbers
        self._remember(values)
        self._read_forms(values, rows, present)
        return present

    def _read_words(self, texts: Any, values: Any) -> None:
        """Count texts that mean something among categories alone, such as "NA" and "None"."""
        self.worded += len(texts) - texts.null_count
        if texts.null_count < values.null_count:
            compute = require("pyarrow.compute", "reading a table")
            words = texts.filter(compute.and_(texts.is_valid(), values.is_null()))
            for entry in compute.value_counts(words).to_pylist():
                self.words[entry["values"]] += entry["counts"]

    def _read_marks(self, values: Any) -> None:
        """Count decimal marks in text that could separate thousands, until one could not."""
        if self.cells.thousands or self.marked > self.either:
            return
        self.marked += _count(values, re.escape(self.cells.decimal))
        self.either += _count(values, either(self.cells.decimal))
        self.short += _count(values, r"^[+-]?\d{1,3}$")

    def _read_affixes(self, values: Any) -> None:
        """Count what stands beside the numbers, among the texts that are ignored there."""
        if not self.cells.strip:
            return
        compute = require("pyarrow.compute", "reading a table")
        for entry in compute.value_counts(values.drop_null()).to_pylist():
            if affixes := self.cells.numerals.affixes(entry["values"]):
                self.affixed[" ".join(affixes)] += entry["counts"]

    def _remember(self, texts: Any) -> None:
        if self.many:
            return
        compute = require("pyarrow.compute", "reading a table")
        for entry in compute.value_counts(texts.drop_null()).to_pylist():
            self.seen[entry["values"]] += entry["counts"]
        self.many = len(self.seen) > MANY

    def _read_forms(self, column: Any, rows: np.ndarray, present: np.ndarray) -> None:
        if self.forms is None and present.any():
            arrow = require("pyarrow", "reading a table")
            some = column.take(arrow.array(np.flatnonzero(present)[:SHAPED]))
            probe = some[:PROBED]
            self.forms = {
                key: Candidate(read)
                for key, read in _date_readers(self.cells, some)
                if read(probe).unreadable.sum() <= 0.5 * len(probe)
            }
        for candidate in (self.forms or {}).values():
            if not candidate.hopeless:
                candidate.update(column, rows)

    def gaps(self, kind: str) -> int:
        """Return the number of rows without a value, if the column is read as this kind."""
        return self.rows - (self.worded if kind == "category" else self.present)

    @property
    def obstacle(self) -> str:
        """What keeps the cells from being numbers, with the option that mends it; "" if nothing."""
        texts = list(self.seen or (self.number.strays if self.number else ()))
        return obstacle(texts, self.cells.numerals)

    @property
    def _may_be_thousands(self) -> bool:
        """Whether a comma is the mark, or all numbers look like 1.234 or 987."""
        return self.cells.decimal == "," or 0 < self.short == self.present - self.marked

    @property
    def doubt(self) -> str:
        """What may be wrong with the numbers as they are read; "" if nothing."""
        if self.marked and self.marked == self.either and self._may_be_thousands:
            name, other = {",": ("commas", "."), ".": ("points", ",")}[self.cells.decimal]
            return (
                f"its {name} are read as decimal marks, and could separate thousands in every "
                f"cell; if they do, use --thousands {self.cells.decimal} --decimal {other}"
            )
        missing = None if self.number is None else self.number.suspicious
        if missing is not None and self.number is not None:
            return (
                f"{missing:g} in {self.number.sentinels[missing]} cells is far from all others "
                f"({self.number.inner_low:g} to {self.number.inner_high:g}); if it means missing, "
                f"use --missing-value {missing:g}"
            )
        return _mixed(self.affixed, self.present)

    @property
    def holds_numbers_and_codes(self) -> bool:
        """Whether the cells are different numbers, and one or a few texts, whatever their share."""
        if self.number is None or not self.number.strays or not self.number.readable:
            return False
        read = {text: self.cells.numerals.number(text) for text in self.seen}
        numbers = [text for text, number in read.items() if number is not None]
        codes = [text for text, number in read.items() if number is None]
        if len(codes) > FEW_STRAYS or len(numbers) < 3 * len(codes):
            return False
        return len(numbers) > 2 * FEW_STRAYS or any(re.search(r"[.,]\d", t) for t in numbers)

    @property
    def repeated(self) -> bool:
        """Whether some text occurs more than once."""
        return max(self.seen.values(), default=0) > 1

    def best_form(self) -> tuple[str, str, Candidate] | None:
        """Return the kind and format of dates or times that reads most cells, and its candidate."""
        found = [(*key, candidate) for key, candidate in (self.forms or {}).items()]
        best = min(found, key=lambda entry: entry[2].unreadable, default=None)
        if best is None or "%y" not in best[1]:
            return best
        # 23-01-05: the year is first if the dates then span a shorter time.
        as_good = [e for e in found if e[1].startswith("%y") and not e[2].unreadable]
        return min([best, *as_good], key=lambda entry: entry[2].high - entry[2].low)

    @property
    def other_order(self) -> str:
        """What to say if the cells would be dates with day and month exchanged; "" if not."""
        first = self.cells.dates.day_first
        if first is None or not self.seen:
            return ""
        texts = list(self.seen)[:PROBED]
        shapes = {shape_of(text) for text in texts}
        for form in DateReading(day_first=not first).of_dates:
            if has_shape(form, shapes) and np.isfinite(seconds_of(texts, form)).all():
                option = "--month-first" if first else "--day-first"
                return f"its cells would be dates with {option}"
        return ""


def _date_readers(cells: Cells, some: Any) -> Iterable[tuple[tuple[str, str], Reader]]:
    """Yield the ways in which some cells may be dates or times."""
    arrow, kind = require("pyarrow", "reading a table"), some.type
    if arrow.types.is_date(kind) or arrow.types.is_timestamp(kind):
        yield ("date", ""), lambda column: cells.instants(column, None)
        return
    if arrow.types.is_time(kind):
        yield ("time of day", ""), lambda column: cells.times_of_day(column, None)
        return
    seen = {shape_of(str(text)) for text in some.unique().to_pylist()}
    for form in cells.dates.of_times:
        if form in cells.dates.formats or has_shape(form, seen):
            yield ("time of day", form), _with_form(cells.times_of_day, form)
    for form in cells.dates.of_dates:
        if form in cells.dates.formats or has_shape(form, seen):
            yield ("date", form), _with_form(cells.instants, form)


def _count(texts: Any, pattern: str) -> int:
    """Return the number of texts with a match of the pattern."""
    compute = require("pyarrow.compute", "reading a table")
    return compute.sum(compute.match_substring_regex(texts, pattern)).as_py() or 0


def _mixed(affixed: Counter[str], present: int) -> str:
    """Return a warning if not the same unit stands beside all numbers."""
    if not affixed or (len(affixed) == 1 and affixed.total() >= present):
        return ""
    found = ", ".join(f"{cut(affix)} in {count}" for affix, count in affixed.most_common())
    return (
        f"not all of its numbers have the same text beside them: {found} of {present} cells; are "
        "they in the same unit?"
    )


def _with_form(read: Callable[[Any, str | None], Values], form: str) -> Reader:
    return lambda column: read(column, form)


def profiles_of(
    names: Sequence[str], cells: Cells, kinds: Mapping[str, str] | None = None
) -> dict[str, Profile]:
    """Create an empty profile for each column; `kinds` are those that were asked for."""
    asked = kinds or {}
    return {name: Profile(name, cells, asked.get(name)) for name in names}
