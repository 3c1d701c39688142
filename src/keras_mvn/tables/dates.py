"""How dates and times of day are read: their formats, and their seconds."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.errors import TableError
from keras_mvn.tables.numerals import float_of

__all__ = [
    "ISO",
    "DateReading",
    "has_shape",
    "is_temporal",
    "seconds_of",
    "shape_of",
    "typed_instants",
    "typed_times_of_day",
]

ISO = "ISO8601"

DAY = 86400.0

SERIALS: dict[str, Callable[[Array], Array]] = {
    "unix": lambda numbers: numbers,
    "excel": lambda numbers: (numbers - 25569.0) * DAY,  # 25569 is the first of January 1970
}
"""Numbers that count time: name → their seconds since 1970."""

_YEAR_FIRST = ("%Y/%m/%d", "%Y.%m.%d", "%y-%m-%d", "%y/%m/%d", "%y.%m.%d")

_DAY_FIRST = ("%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y")

_MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y", "%m-%d-%y")

_NAMED = (
    *("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%d %b %y"),
    *("%d. %b %Y", "%d. %B %Y", "%a, %d %b %Y"),
)

_TIMES = (
    *("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %H.%M.%S", " %I:%M %p", " %I:%M:%S %p"),
    *("T%H:%M", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S", " %H"),
)

_TIMES_OF_DAY = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%H.%M.%S", "%I:%M %p", "%I:%M:%S %p")


@final
@dataclass(frozen=True)
class DateReading:
    """How dates in text are read.

    Args:
        formats: formats in the syntax of `strptime`, or "unix" for seconds since 1970 and "excel"
            for days since 1900, tried before the usual ones; a column may mix them.
        day_first: bool, whether 3/4 is the third of April; None: what fits all cells of a column,
            and the third of April if both do.

    """

    formats: tuple[str, ...] = ()
    day_first: bool | None = None

    def __post_init__(self) -> None:
        for form in self.formats:
            if "%" not in form and form not in SERIALS:
                raise TableError(
                    f"--date-format {form}: expected a format such as %d.%m.%Y or '%Y%m%d %H:%M', "
                    "or unix (seconds since 1970) or excel (days since 1900)."
                )

    @property
    def of_dates(self) -> tuple[str, ...]:
        """Formats of dates, in the order in which they are preferred."""
        numbered = {
            None: (*_DAY_FIRST, *_MONTH_FIRST),
            True: _DAY_FIRST,
            False: _MONTH_FIRST,
        }[self.day_first]
        usual = (ISO, *(d + t for d in (*numbered, *_YEAR_FIRST, *_NAMED) for t in _TIMES))
        return (*(form for form in self.formats if _has_a_day(form)), *usual)

    @property
    def of_times(self) -> tuple[str, ...]:
        """Formats of times of day without a date."""
        return (*(form for form in self.formats if not _has_a_day(form)), *_TIMES_OF_DAY)

    def tried(self, form: str) -> tuple[str, ...]:
        """Return the formats with which cells are read one after the other, given the column's.

        Those that the user gave belong together: a cell is read by the first that fits. A column
        whose format was inferred earlier, perhaps from another file, keeps it, except for the order
        of day and month if that is given now.
        """
        of_a_kind = [f for f in self.formats if _has_a_day(f) == _has_a_day(form)]
        if form in self.formats:
            return tuple(of_a_kind)
        if self.day_first is not None:
            for day_first, month_first in _EXCHANGED:
                mine, other = (
                    (month_first, day_first) if self.day_first else (day_first, month_first)
                )
                form = form.replace(mine, other)
        return (form, *of_a_kind)


_EXCHANGED = (("%d/%m", "%m/%d"), ("%d-%m", "%m-%d"))


def _has_a_day(form: str) -> bool:
    return form in (ISO, *SERIALS) or re.search(r"%[-#]?[YymdjbBcxsUWGuDF]", form) is not None


def shape_of(text: str) -> str:
    """Return the text with 9 for numbers and A for words, in which formats may be told apart.

    >>> shape_of("13/02/2024 10:00 UTC"), shape_of("5 May 2024 1:05pm")
    ('9/9/9 9:9', '9 A 9 9:9 A')
    """
    return re.sub(r"[^\W\d_]+", "A", re.sub(r"\d+", "9", _plain(text, "")[0]))


@functools.cache
def _shape_of_form(form: str) -> str:
    return re.sub(r"%[bBpa]", "A", re.sub(r"%[-#]?[^bBpa]", "9", form))


def has_shape(form: str, shapes: set[str]) -> bool:
    """Whether cells of these shapes may be dates or times in this format."""
    if form == ISO:
        return any(shape.startswith("9") for shape in shapes)
    return _shape_of_form(form) in shapes


def is_temporal(kind: Any) -> bool:
    """Whether cells of this `pyarrow` type are dates or times of day."""
    types = require("pyarrow", "reading a table").types
    return bool(types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind))


def seconds_of(texts: list[str], form: str) -> Array:
    """Seconds since 1970, in UTC, of dates or times of day in this format; NaN for other text.

    Beside what the format says, a cell may end in a time zone (UTC, Z, +02:00), write midnight at
    the end of a day as 24:00, join AM to the time, or, where the format has a time, have none.
    """
    if form in SERIALS:
        return SERIALS[form](np.array([_number_or_nan(text) for text in texts]))
    seconds = _parsed(texts, form)
    others = np.flatnonzero(np.isnan(seconds))
    if len(others):
        seconds[others] = _leniently_parsed([texts[i] for i in others], form)
    return seconds


def _number_or_nan(text: str) -> float:
    number = float_of(text)
    return np.nan if number is None else number


def _leniently_parsed(texts: list[str], form: str) -> Array:
    plain = [_plain(text, form) for text in texts]
    seconds = _parsed([text for text, _ in plain], form)
    day = re.split(r"[ T,]*%[HI]", form)[0]
    bare = np.flatnonzero(np.isnan(seconds))
    if form != ISO and day and day != form and len(bare):
        seconds[bare] = _parsed([plain[i][0] for i in bare], day)
    for i in np.flatnonzero(np.isnan(seconds)):
        seconds[i] = _far_instant(plain[i][0], form)
    return seconds + np.array([later for _, later in plain])


_YEAR = re.compile(r"(?<!\d)\d{4}(?!\d)")

_NANOSECONDS = range(1678, 2262)
"""Years that nanoseconds in 64 bits reach, which are the resolution of pandas before version 3."""


def _far_instant(text: str, form: str) -> float:
    """Seconds since 1970 of a date that is beyond what nanoseconds reach; NaN for other text."""
    years = {int(found) for found in _YEAR.findall(text)}
    if not years or years & set(_NANOSECONDS):
        return np.nan
    try:
        found = datetime.fromisoformat(text) if form == ISO else datetime.strptime(text, form)
    except ValueError:
        return np.nan
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


_ZONE = re.compile(r"(?<=[\dMm])\s*(?:UTC|GMT|Z|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d))$")

_HAS_TIME = re.compile(r"\d[:.]\d\d")

_END_OF_DAY = re.compile(r"(?<![\d:.])24([:.])00((?:[:.]00)?(?:\.0+)?)(?![\d:])")


def _plain(text: str, form: str) -> tuple[str, float]:
    """The text without its time zone and the like, and the seconds to be added for them."""
    later = 0.0
    if _HAS_TIME.search(text) or (form != ISO and text.endswith(("UTC", "GMT", "Z"))):
        zone = _ZONE.search(text)
        if zone and "%z" not in form and "%Z" not in form and _is_zone(text, zone):
            text = text[: zone.start()].rstrip()
            if zone["sign"]:
                offset = 3600.0 * float(zone["hours"]) + 60.0 * float(zone["minutes"])
                later -= offset if zone["sign"] == "+" else -offset
        text, ends = _END_OF_DAY.subn(r"00\g<1>00\g<2>", text)
        later += DAY * ends
        text = re.sub(r"(?<=\d)\s*([AaPp])\.?[Mm]\.?$", r" \1M", text)
    return text, later


def _is_zone(text: str, zone: re.Match[str]) -> bool:
    """Whether it is not the year of 01-05-2024, in which no time comes before."""
    return zone["sign"] is None or _HAS_TIME.search(text[: zone.start()]) is not None


@functools.cache
def _width(form: str) -> int:
    """The number of digits of a format without separators, such as %Y%m%d; 0 for any other."""
    if not re.fullmatch(r"(%[YmdHMSyj])+", form):
        return 0
    return sum({"Y": 4, "j": 3}.get(letter, 2) for letter in form[1::2])


def _parsed(texts: list[str], form: str) -> Array:
    pandas = require("pandas", "reading dates")
    width = _width(form)
    if width:  # a number, which may have lost its leading zeros
        texts = [text.zfill(width) if text.isdigit() else text for text in texts]
    try:
        stamps = pandas.to_datetime(
            pandas.Series(texts, dtype=object), format=form, errors="coerce", utc=True
        )
    except ValueError as error:
        raise TableError(f"--date-format {form}: {error}.") from error
    microseconds = stamps.astype("datetime64[us, UTC]").astype("int64").to_numpy()
    missing = stamps.isna().to_numpy()
    return np.array(np.where(missing, np.nan, microseconds * 1e-6), dtype=np.float64)


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
