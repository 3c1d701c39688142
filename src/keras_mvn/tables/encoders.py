"""Encoders from a column's cells to network inputs: frozen, and defined by their configuration."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.fences import fences
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.cells import Cells, Values
from keras_mvn.tables.deciding import Decision
from keras_mvn.tables.errors import CellError, cut
from keras_mvn.tables.obstacles import obstacle

__all__ = [
    "ENCODERS",
    "BooleanEncoder",
    "CategoryEncoder",
    "DateEncoder",
    "Encoder",
    "NumberEncoder",
    "TimeOfDayEncoder",
    "encoder_of",
]

DAY = 86400.0

RARE = 0.005
"""Share of training rows below which a category is rare, within the row limits below."""

RARE_AT_LEAST, RARE_AT_MOST = 2, 10

MOST_LEVELS = 50


@dataclass(frozen=True)
class Encoder(abc.ABC):
    """Encoder of one column as columns of numbers, with missing values imputed."""

    column: str
    indicator: bool
    """Whether an additional column marks missing values."""

    @property
    @abc.abstractmethod
    def value_names(self) -> list[str]:
        """Names of the encoded columns, without the indicator."""

    @property
    @final
    def names(self) -> list[str]:
        """Names of the encoded columns, including the indicator."""
        return [*self.value_names, *([f"{self.column} missing"] if self.indicator else [])]

    @property
    def units(self) -> tuple[float, float]:
        """Center and scale of the inputs of values: x = center + scale · input."""
        return 0.0, 1.0

    @abc.abstractmethod
    def _encode(self, column: Any, cells: Cells) -> tuple[Array, np.ndarray]:
        """Return the imputed values (n, m), and a mask of the missing ones (n,)."""

    @final
    def encode(self, column: Any, cells: Cells) -> tuple[Array, np.ndarray]:
        """Encode a column as finite numbers (n, len(names)); also return what is missing: (n,).

        Raises:
            CellError: the cells are of a different kind than in training.

        """
        values, missing = self._encode(column, cells)
        columns = [values, missing[:, None]] if self.indicator else [values]
        return np.concatenate(columns, axis=1).astype(np.float64), missing

    def shown(self, column: Any, cells: Cells) -> np.ndarray:
        """Return the cells for display, as text; "" where missing."""
        return np.array(cells.texts(column).fill_null("").to_pylist(), dtype=str)

    def unknown(self, column: Any, cells: Cells) -> list[str]:
        """Return the distinct cells that were in no training row, if that affects the encoding."""
        return []

    @final
    def get_config(self) -> dict[str, Any]:
        """Return the configuration as JSON-serializable values."""
        return {"encoder": type(self).__name__, **asdict(self)}

    @classmethod
    @abc.abstractmethod
    def fit(cls, decision: Decision, column: Any, cells: Cells, indicator: bool) -> Self | None:
        """Fit to training rows; return None if they carry no information (always the same)."""

    @final
    def _checked(
        self,
        values: Values,
        column: Any,
        what: str,
        mend: Callable[[str], str] = lambda text: "",
    ) -> Array:
        numbers, unreadable = values
        bad = unreadable | np.isinf(numbers)
        if bad.any():
            row = int(np.argmax(bad))
            way_out = mend(str(column[row].as_py()))
            raise CellError(
                f"column {self.column!r} must hold {what}, as in training; found "
                f"{cut(column[row].as_py())}",
                row,
                f"; {way_out}" if way_out else ".",
            )
        return numbers


@final
@dataclass(frozen=True)
class NumberEncoder(Encoder):
    """Encoder of numbers as (x − center)/scale, with the median for missing values."""

    center: float
    scale: float
    fill: float

    @property
    def units(self) -> tuple[float, float]:
        """Center and scale of the inputs of values."""
        return self.center, self.scale

    @property
    def value_names(self) -> list[str]:
        """The name of the column, or nothing if only its indicator varies."""
        return [self.column] if self.scale else []

    def _encode(self, column: Any, cells: Cells) -> tuple[Array, np.ndarray]:
        numbers = self._checked(
            cells.numbers(column), column, "numbers", lambda text: obstacle([text], cells.numerals)
        )
        missing = np.isnan(numbers)
        filled = np.where(missing, self.fill, numbers)
        values = (filled - self.center)[:, None] / self.scale if self.scale else _none(missing)
        return values, missing

    def shown(self, column: Any, cells: Cells) -> np.ndarray:
        """Return the numbers, NaN where missing."""
        return cells.numbers(column).numbers

    @classmethod
    def fit(cls, decision: Decision, column: Any, cells: Cells, indicator: bool) -> Self | None:
        """Fit the median, mean and standard deviation."""
        numbers = cells.numbers(column).numbers
        seen = numbers[np.isfinite(numbers)]
        if not len(seen):
            return None
        beyond = fences(seen[:, None], codes=True).beyond(seen[:, None])[:, 0]
        regular = seen[~beyond]  # one glitch would leave the others no digits in float32
        unit = float(np.abs(regular).max()) or 1.0  # so that squares of 1e200 stay finite
        center, scale = float((regular / unit).mean()) * unit, float((regular / unit).std()) * unit
        if scale <= 1e-12 * unit:
            scale = 0.0
        if scale == 0.0 and not indicator:
            return None
        return cls(decision.column, indicator, center, scale, float(np.median(seen)))


@final
@dataclass(frozen=True)
class BooleanEncoder(Encoder):
    """Encoder of booleans as 1 and 0, with the more frequent one for missing values."""

    fill: float

    @property
    def value_names(self) -> list[str]:
        """The name of the column."""
        return [self.column]

    def _encode(self, column: Any, cells: Cells) -> tuple[Array, np.ndarray]:
        numbers = self._checked(cells.truths(column), column, "true or false")
        missing = np.isnan(numbers)
        return np.where(missing, self.fill, numbers)[:, None], missing

    @classmethod
    def fit(cls, decision: Decision, column: Any, cells: Cells, indicator: bool) -> Self | None:
        """Find the more frequent value."""
        numbers = cells.truths(column).numbers
        seen = numbers[np.isfinite(numbers)]
        if not len(seen) or (np.ptp(seen) == 0 and not indicator):
            return None
        return cls(decision.column, indicator, float(seen.mean() > 0.5))


@final
@dataclass(frozen=True)
class CategoryEncoder(Encoder):
    """One-hot encoder with a column per frequent category, and one for any other categories.

    If there were no others in training, an unknown category is encoded as zeros.
    """

    levels: tuple[str, ...]
    other: bool
    fill: str

    @property
    def value_names(self) -> list[str]:
        """Names of the form column=category."""
        others = [f"{self.column}=(other)"] if self.other else []
        return [*(f"{self.column}={level}" for level in self.levels), *others]

    def _encode(self, column: Any, cells: Cells) -> tuple[Array, np.ndarray]:
        texts = cells.categories(column)
        missing = ~texts.is_valid().to_numpy(zero_copy_only=False)
        arrow = require("pyarrow", "reading a table")
        compute = require("pyarrow.compute", "reading a table")
        known = arrow.array(self.levels, arrow.string())
        index = compute.index_in(texts.fill_null(self.fill), known).fill_null(len(self.levels))
        hot = np.eye(len(self.levels) + 1)[index.to_numpy(zero_copy_only=False)]
        return hot[:, : len(self.value_names)], missing

    def unknown(self, column: Any, cells: Cells) -> list[str]:
        """Return the categories that were in no training row, or too rare there."""
        known = {*self.levels, None}
        return [text for text in cells.categories(column).unique().to_pylist() if text not in known]

    @classmethod
    def fit(cls, decision: Decision, column: Any, cells: Cells, indicator: bool) -> Self | None:
        """Find the frequent categories, in order of frequency."""
        compute = require("pyarrow.compute", "reading a table")
        texts = cells.categories(column).drop_null()
        counts = {e["values"]: e["counts"] for e in compute.value_counts(texts).to_pylist()}
        ordered = sorted(counts, key=lambda text: (-counts[text], text))
        rows = math.ceil(RARE * len(texts))
        enough = min(RARE_AT_MOST, max(RARE_AT_LEAST, rows))
        levels = tuple(text for text in ordered if counts[text] >= enough)[:MOST_LEVELS]
        other = len(levels) < len(ordered)
        if not levels or (len(ordered) == 1 and not indicator):
            return None
        return cls(decision.column, indicator, levels, other, levels[0])


@final
@dataclass(frozen=True)
class DateEncoder(Encoder):
    """Encoder of dates as year, elapsed time, and waves over the year, the week and the day.

    Only the parts that vary are used. Elapsed time is clipped to the range of the training rows,
    since the network has learned nothing about dates beyond it.
    """

    form: str | None
    parts: tuple[str, ...]
    start: float
    end: float
    fill: float

    @property
    def value_names(self) -> list[str]:
        """Names of the columns of its parts."""
        return [f"{self.column} {name}" for part in self.parts for name in _part_names(part)]

    def _encode(self, column: Any, cells: Cells) -> tuple[Array, np.ndarray]:
        seconds = self._checked(cells.instants(column, self.form), column, "dates")
        missing = np.isnan(seconds)
        filled = np.where(missing, self.fill, seconds)
        columns = [_date_part(part, filled, self.start, self.end) for part in self.parts]
        return np.concatenate([_none(missing), *columns], axis=1), missing

    @classmethod
    def fit(cls, decision: Decision, column: Any, cells: Cells, indicator: bool) -> Self | None:
        """Find the parts that differ between rows."""
        seconds = cells.instants(column, decision.form).numbers
        seen = seconds[np.isfinite(seconds)]
        if not len(seen):
            return None
        start, end, fill = float(seen.min()), float(seen.max()), float(np.median(seen))
        grow = {*TRENDS, *([] if end - start >= MOST_OF_A_YEAR else ["day of year"])}
        asked = [part for part in DATE_PARTS if decision.trend or part not in grow]
        parts = tuple(part for part in asked if len(np.unique(_calendar(part, seen))) > 1)
        if not parts and not indicator:
            return None
        return cls(decision.column, indicator, decision.form, parts, start, end, fill)


@final
@dataclass(frozen=True)
class TimeOfDayEncoder(Encoder):
    """Encoder of times of day as sine and cosine with a period of 24 hours."""

    form: str | None
    fill: float

    @property
    def value_names(self) -> list[str]:
        """Names of the sine and cosine columns."""
        return [f"{self.column} {name}" for name in _part_names("hour")]

    def _encode(self, column: Any, cells: Cells) -> tuple[Array, np.ndarray]:
        seconds = self._checked(cells.times_of_day(column, self.form), column, "times of day")
        missing = np.isnan(seconds)
        return _periodic(np.where(missing, self.fill, seconds), DAY), missing

    @classmethod
    def fit(cls, decision: Decision, column: Any, cells: Cells, indicator: bool) -> Self | None:
        """Find the median, which replaces missing values."""
        seconds = cells.times_of_day(column, decision.form).numbers
        seen = seconds[np.isfinite(seconds)]
        if not len(seen) or (np.ptp(seen) == 0 and not indicator):
            return None
        return cls(decision.column, indicator, decision.form, float(np.median(seen)))


TRENDS = ("year", "elapsed")
"""Parts of dates that only grow."""

MOST_OF_A_YEAR = 350 * DAY
"""Time within which the day of the year only grows, too."""

DATE_PARTS = (*TRENDS, "day of year", "weekday", "hour")
"""Parts of dates; files of 0.1.0 have "month" in place of the day of the year."""

ENCODERS: dict[str, type[Encoder]] = {
    "number": NumberEncoder,
    "boolean": BooleanEncoder,
    "category": CategoryEncoder,
    "date": DateEncoder,
    "time of day": TimeOfDayEncoder,
}
"""Kind of column → class of its encoder."""

_BY_NAME = {cls.__name__: cls for cls in ENCODERS.values()}


def encoder_of(config: dict[str, Any]) -> Encoder:
    """Create the encoder from its configuration."""
    arguments = dict(config)
    cls: Any = _BY_NAME[arguments.pop("encoder")]
    encoder: Encoder = cls(
        **{key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items()}
    )
    return encoder


def _none(rows: np.ndarray) -> Array:
    return np.zeros((len(rows), 0))


def _part_names(part: str) -> list[str]:
    return [part] if part in TRENDS else [f"{part} sin", f"{part} cos"]


def _calendar(part: str, seconds: Array) -> Array:
    """The part of each date as a number; for "elapsed", the date itself in seconds."""
    if part == "elapsed":
        return seconds
    if part == "hour":
        return np.asarray(seconds % DAY)
    days = np.floor(seconds / DAY).astype(np.int64).astype("datetime64[D]")
    if part == "day of year":
        return np.asarray((seconds - _calendar_start(days)) / DAY)
    if part == "weekday":
        return np.asarray((days.astype(np.int64) + 3) % 7, dtype=np.float64)  # 1970-01-01: Thursday
    if part == "month":
        return np.asarray(days.astype("datetime64[M]").astype(np.int64) % 12, dtype=np.float64)
    return np.asarray(days.astype("datetime64[Y]").astype(np.int64) + 1970, dtype=np.float64)


def _calendar_start(days: np.ndarray) -> Array:
    """Return when the year of each day began, in seconds."""
    return np.asarray(days.astype("datetime64[Y]").astype("datetime64[s]").astype(np.float64))


PERIODS = {"hour": DAY, "weekday": 7.0, "month": 12.0, "day of year": 365.2425}


def _date_part(part: str, seconds: Array, start: float, end: float) -> Array:
    numbers = _calendar(part, seconds)
    if part in PERIODS:
        return _periodic(numbers, PERIODS[part])
    if part == "year":
        return ((np.clip(numbers, *_calendar("year", np.array([start, end])))) - 2000.0)[:, None]
    middle = 0.5 * (start + end)
    return ((np.clip(numbers, start, end) - middle) / max(0.5 * (end - start), 1.0))[:, None]


def _periodic(numbers: Array, period: float) -> Array:
    angle = 2.0 * np.pi * numbers / period
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
