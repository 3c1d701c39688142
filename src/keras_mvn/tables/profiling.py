"""Profiles of columns from one pass over all of their cells, and what follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.cells import (
    BOOLEANS,
    Cells,
    Values,
    is_coded,
    is_decimal_comma,
    is_number,
    is_text,
)
from keras_mvn.tables.dates import DATE_FORMATS, TIME_FORMATS, is_temporal
from keras_mvn.tables.errors import TableError, listed

__all__ = ["KINDS", "Candidate", "Decision", "Profile", "decide", "profiles_of"]

MANY = 10_000
"""Maximum number of distinct texts stored; a column with more is text or an identifier."""

CATEGORIES = 50
"""Number of distinct texts up to which a column is categorical, however few rows there are."""

CATEGORY_SHARE = 0.05
"""Share of the rows up to which a larger number of distinct texts is still categorical."""

MOST_CATEGORIES = 1000

PROBED = 50
"""Number of cells that decide which date formats are worth trying on all cells."""

MOSTLY = 0.9
"""Share of readable cells from which a column holds numbers or dates, the rest being errors."""

IDENTIFIERS = ("id", "index", "row", "nr", "no", "number", "key")
"""Names of columns that may hold the row number."""

KINDS = ("number", "boolean", "category", "date", "time of day")
"""Kinds of inputs."""


@final
@dataclass(frozen=True)
class Decision:
    """The decision on how a column is used, and the reason."""

    column: str
    kind: str
    """One of `KINDS`, or "dropped"."""
    why: str
    form: str | None = None
    """Format of dates and times in text."""


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
    low: float = np.inf
    high: float = -np.inf
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
        finite = np.isfinite(numbers)
        if self.infinite is None and (present & ~finite).any():
            self.infinite = int(rows[np.argmax(present & ~finite)])
        if finite.any():
            self.low = min(self.low, float(numbers[finite].min()))
            self.high = max(self.high, float(numbers[finite].max()))
        return numbers

    @property
    def hopeless(self) -> bool:
        """Whether so many cells were unreadable that they cannot be just a few errors."""
        return self.unreadable > 20 and self.unreadable > 0.5 * self.readable


@final
@dataclass
class Profile:
    """Statistics of one column from the rows read so far."""

    name: str
    cells: Cells
    rows: int = 0
    present: int = 0
    type_name: str = ""
    number: Candidate | None = None
    """The column read as numbers; None if its type holds none."""
    forms: dict[tuple[str, str], Candidate] | None = None
    """(kind, format) of dates and times → its candidate; None until a cell needs one."""
    seen: Counter[str] = field(default_factory=Counter)
    """Counts of distinct texts, in the batches in which not all cells were numbers."""
    many: bool = False
    """Whether there were more distinct texts than are stored."""
    coded: bool = False
    """Whether the file declares its numbers to be categories."""
    counting: bool = True
    """Whether the column has equaled the row number so far."""

    def update(self, column: Any, rows: np.ndarray) -> np.ndarray:
        """Read the cells of further rows; return a mask of those that are present."""
        self.rows += len(column)
        self.type_name = str(column.type)
        self.coded = is_coded(column.type)
        if is_number(column.type):
            present = self._read_numbers(self.cells.numbers, column, rows)
        elif is_text(column.type):
            present = self._read_texts(self.cells.texts(column), rows)
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

    def _read_texts(self, texts: Any, rows: np.ndarray) -> np.ndarray:
        present = texts.is_valid().to_numpy(zero_copy_only=False)
        if self.number is None or not self.number.hopeless:
            of_numbers = self._read_numbers(self.cells.parsed, texts, rows)
            # Cells declared missing are readable, yet hold no number.
            unread = self.cells.parsed(texts).unreadable if (present & ~of_numbers).any() else None
            if unread is None or not unread.any():
                return of_numbers
        self._remember(texts)
        self._read_forms(texts, rows, present)
        return np.asarray(present)

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
            probe = column.take(arrow.array(np.flatnonzero(present)[:PROBED]))
            self.forms = {
                key: Candidate(read)
                for key, read in _date_readers(self.cells, column.type)
                if read(probe).unreadable.sum() <= 0.5 * len(probe)
            }
        for candidate in (self.forms or {}).values():
            if not candidate.hopeless:
                candidate.update(column, rows)

    @property
    def repeated(self) -> bool:
        """Whether some text occurs more than once."""
        return max(self.seen.values(), default=0) > 1

    def best_form(self) -> tuple[str, str, Candidate] | None:
        """Return the kind and format of dates or times that reads most cells, and its candidate."""
        found = [(*key, candidate) for key, candidate in (self.forms or {}).items()]
        return min(found, key=lambda entry: entry[2].unreadable, default=None)


def decide(profile: Profile, asked: str | None = None) -> Decision:
    """Decide what a column is: the requested kind, or what all of its cells suggest.

    Raises:
        TableError: the cells are not of the requested kind; a few cells in a column of numbers or
            dates are not; a number is infinite.

    """
    if asked is not None:
        return _as_asked(profile, asked)
    name, rows = profile.name, profile.rows
    if profile.present == 0:
        return Decision(name, "dropped", "no values")
    if profile.number is None and profile.forms is None:
        return Decision(name, "dropped", f"unsupported type {profile.type_name}")
    if profile.coded:
        return Decision(name, "category", "declared so by the file")
    return (
        _if_number(profile)
        or _if_boolean(profile)
        or _if_date(profile)
        or _if_category(profile, rows)
        or Decision(name, "dropped", _why_text(profile))
    )


def _as_asked(profile: Profile, kind: str) -> Decision:
    name, said = profile.name, "as requested"
    if kind not in KINDS:
        raise TableError(f"--as {name}={kind}: expected one of {listed(KINDS)}.")
    found = {
        "number": _if_number,
        "boolean": _if_boolean,
        "date": _if_date,
        "time of day": _if_date,
    }.get(kind)
    if found is None:
        return Decision(name, "category", said)
    decision = found(profile)
    if decision is None or decision.kind != kind:
        text = next(iter(profile.seen), None)
        number = profile.number
        cells = f"{profile.type_name}" if text is None else f"texts such as {text!r}"
        if text is None and number is not None and number.readable:
            cells = f"numbers from {number.low:g} to {number.high:g}"
        raise TableError(f"--as {name}={kind}: its cells are {cells}.")
    return decision


def _if_number(profile: Profile) -> Decision | None:
    number, name = profile.number, profile.name
    if number is None or number.readable < MOSTLY * profile.present or not number.readable:
        return None
    if _truth_typed(profile):
        return None
    if number.unreadable:
        raise _stray(profile, number, "numbers")
    if number.infinite is not None:
        raise TableError(
            f"column {name!r} holds an infinite number in row {number.infinite + 1}; if that means "
            "missing, use --missing-value inf --missing-value -inf"
        )
    if number.low == number.high and profile.present == profile.rows:
        return Decision(name, "dropped", f"always {number.low:g}")
    if profile.counting and _named_as_identifier(name) and profile.rows > 1:
        return Decision(name, "dropped", "the row number")
    return Decision(name, "number", f"from {number.low:g} to {number.high:g}")


def _truth_typed(profile: Profile) -> bool:
    return profile.type_name == "bool"


def _if_boolean(profile: Profile) -> Decision | None:
    if _truth_typed(profile) and profile.number is not None:
        if profile.number.low == profile.number.high and profile.present == profile.rows:
            return Decision(profile.name, "dropped", f"always {bool(profile.number.low)}")
        return Decision(profile.name, "boolean", "true and false")
    values = {text.casefold() for text in profile.seen}
    if profile.many or not values or not values <= set(BOOLEANS):
        return None
    if len(values) == 1 and profile.present == profile.rows:
        return Decision(profile.name, "dropped", f"always {next(iter(profile.seen))!r}")
    return Decision(profile.name, "boolean", " and ".join(sorted(profile.seen)))


def _if_date(profile: Profile) -> Decision | None:
    best = profile.best_form()
    if best is None:
        return None
    kind, form, candidate = best
    if candidate.readable < MOSTLY * profile.present:
        return None
    if candidate.unreadable:
        raise _stray(profile, candidate, "dates" if kind == "date" else "times of day")
    if candidate.low == candidate.high and profile.present == profile.rows:
        return Decision(profile.name, "dropped", f"always {next(iter(profile.seen), 'the same')!r}")
    why = f"as {form}" if form else f"of type {profile.type_name}"
    if kind == "date":
        why = f"{_day(candidate.low)} to {_day(candidate.high)}, {why}"
        why += _other_readings(profile, form)
    return Decision(profile.name, kind, why, form or None)


def _day(seconds: float) -> str:
    return str(np.datetime64(round(seconds), "s"))[:10]


def _other_readings(profile: Profile, form: str) -> str:
    """Return a warning if day and month could be swapped."""
    others = [form for (_, form), c in (profile.forms or {}).items() if c.unreadable == 0]
    exchanged = {"%d/%m": "%m/%d", "%d-%m": "%m-%d"}
    for mine, other in exchanged.items():
        if mine in form and form.replace(mine, other) in others:
            return " (the month could also be first: every day is below 13)"
    return ""


def _if_category(profile: Profile, rows: int) -> Decision | None:
    different = len(profile.seen)
    if profile.many or not different:
        return None
    if different == 1 and profile.present == rows:
        return Decision(profile.name, "dropped", f"always {next(iter(profile.seen))!r}")
    few = different <= CATEGORIES or (
        different <= CATEGORY_SHARE * rows and different <= MOST_CATEGORIES
    )
    if not few or (not profile.repeated and different > 2):
        return None
    why = f"{different} different texts{_decimal_hint(profile)}"
    return Decision(profile.name, "category", why)


def _why_text(profile: Profile) -> str:
    hint = _decimal_hint(profile)
    if not profile.repeated and not hint:
        return "an identifier: all of its texts differ"
    count = f"more than {MANY}" if profile.many else str(len(profile.seen))
    return f"text: {count} different values in {profile.rows} rows{hint}"


def _decimal_hint(profile: Profile) -> str:
    """Return advice on numbers that are read as text because of their decimal comma."""
    commas = profile.seen and all(map(is_decimal_comma, profile.seen))
    return "; if these are numbers, use --decimal ," if commas else ""


def _stray(profile: Profile, candidate: Candidate, what: str) -> TableError:
    text, row = candidate.example or ("?", 0)
    return TableError(
        f"column {profile.name!r} holds {what}, except for {text[:40]!r} in row {row + 1} "
        f"({candidate.unreadable} such cells in {profile.rows} rows). If that means missing, use "
        f"--missing-value {text[:40]!r}; otherwise, --as {profile.name}=category or "
        f"--drop {profile.name}"
    )


def _named_as_identifier(name: str) -> bool:
    plain = name.casefold().strip("_ ")
    return plain in IDENTIFIERS or plain.startswith("column ")


def _date_readers(cells: Cells, kind: Any) -> Iterable[tuple[tuple[str, str], Reader]]:
    arrow = require("pyarrow", "reading a table")
    if arrow.types.is_date(kind) or arrow.types.is_timestamp(kind):
        yield ("date", ""), lambda column: cells.instants(column, None)
        return
    if arrow.types.is_time(kind):
        yield ("time of day", ""), lambda column: cells.times_of_day(column, None)
        return
    for form in TIME_FORMATS:
        yield ("time of day", form), _with_form(cells.times_of_day, form)
    for form in DATE_FORMATS:
        yield ("date", form), _with_form(cells.instants, form)


def _with_form(read: Callable[[Any, str | None], Values], form: str) -> Reader:
    return lambda column: read(column, form)


def profiles_of(names: Sequence[str], cells: Cells) -> dict[str, Profile]:
    """Create an empty profile for each column."""
    return {name: Profile(name, cells) for name in names}
