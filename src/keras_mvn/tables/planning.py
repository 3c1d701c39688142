"""Conversion of a table to arrays on disk: the first pass inspects it, the second one writes them.

Neither pass holds more than a batch of rows and a sample of 20,000 rows, so that a table may be
larger than memory.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.tables.cells import Cells
from keras_mvn.tables.clock import Clock, grows, values_of
from keras_mvn.tables.deciding import Decision, decide, mend_of
from keras_mvn.tables.dividing import Divided
from keras_mvn.tables.errors import CellError, TableError, cut, listed
from keras_mvn.tables.preprocessing import Preprocessing, chunk_of, fit_preprocessing, share_of
from keras_mvn.tables.profiling import Candidate, Profile, profiles_of
from keras_mvn.tables.question import Question
from keras_mvn.tables.sampling import RowSample
from keras_mvn.tables.splitting import Split
from keras_mvn.tables.table import Table

__all__ = [
    "Plan",
    "Survey",
    "index_left_out",
    "inputs_of",
    "plan",
    "survey",
    "write_arrays",
]

MOST_COLUMNS = 2000
"""Maximum number of inputs and targets together; a dense network needs a selection of more."""

LARGEST_TARGET = 1e30
"""Largest absolute target; beyond it, float32 differences, and thus scales, would soon overflow."""

FEWEST_ROWS = 20
"""Minimum number of rows with an observed target; with fewer, no part of a split is useful."""

Notify = Callable[[int], None]
"""Callback that receives the number of rows read so far."""


@final
@dataclass(frozen=True)
class Survey:
    """Results of a pass over all rows."""

    rows: int
    profiles: dict[str, Profile]
    sample: RowSample
    usable: np.ndarray
    """Row numbers of the rows with an observed target."""
    order: np.ndarray | None
    """Group codes or times of these rows; None for a random split."""
    ungrouped: int = 0
    """Number of these rows that have no group."""
    untimed: int = 0
    """Number of rows that were left out because they have no time."""
    history: int = 0
    """Number of first rows that were left out because they lack earlier ones."""


@final
@dataclass(frozen=True)
class Plan:
    """Plan for using a table: its preprocessing, its columns, and the split of its rows."""

    preprocessing: Preprocessing
    decisions: tuple[Decision, ...]
    rows: np.ndarray
    """Row numbers of the rows used, in the order of the file."""
    divided: Divided
    """Positions in `rows`."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What may be wrong, with the option that mends it."""

    @property
    def split(self) -> Split:
        """The parts: positions in `rows`."""
        return self.divided.split


def inputs_of(table: Table, question: Question) -> list[str]:
    """Return the names of the columns that may be inputs, according to the question.

    Raises:
        TableError: columns are unknown, too many, or named in conflicting ways, or none is left.

    """
    for option, names in (
        ("--targets", question.targets),
        ("--features", question.features or ()),
        ("--drop", question.drop),
        ("--as", tuple(question.kinds)),
        ("--group", tuple(filter(None, [question.group]))),
        ("--time", tuple(filter(None, [question.time]))),
    ):
        table.require(names, option)
    targets = question.targets
    if not targets or len(set(targets)) < len(targets):
        raise TableError(f"--targets {','.join(targets)}: name each target once.")
    both = [name for name in question.features or () if name in targets]
    if both:
        raise TableError(f"--features: {listed(both)} is a target too.")
    typed = [name for name in question.kinds if name in targets]
    if typed:
        raise TableError(f"--as: {listed(typed)} is a target, and targets are always numbers.")
    contradicted = [name for name in question.features or () if name in question.drop]
    if contradicted:
        raise TableError(f"--features: {listed(contradicted)} is in --drop too.")
    asked = question.features
    every = table.columns if asked is None else (*asked, *table.derived)
    every = tuple(dict.fromkeys(every))
    out = {*targets, *question.drop, question.group, *index_left_out(table, question)}
    inputs = [name for name in every if name not in out]
    if not inputs:
        raise TableError(f"{table.path} has no column left to predict {listed(targets)} from.")
    if len(inputs) + len(targets) > MOST_COLUMNS:
        raise TableError(
            f"{table.path} has {len(inputs)} columns besides the targets; up to "
            f"{MOST_COLUMNS - len(targets)} are supported. Choose with --features or --drop."
        )
    return inputs


def index_left_out(table: Table, question: Question) -> list[str]:
    """Return the columns that number or name the rows: no inputs, unless somebody says so."""
    asked = {*(question.features or ()), *question.kinds, *question.targets}
    return [name for name in table.index if name not in asked.union(_key_columns(question))]


def survey(table: Table, question: Question, cells: Cells, notify: Notify) -> Survey:
    """Make the first pass: profile all columns, sample rows, and find the rows with targets.

    Raises:
        TableError: the table cannot be read or holds too little data, or targets are not numbers.

    """
    arrow = require("pyarrow", "reading a table")
    inputs = inputs_of(table, question)
    columns = list(dict.fromkeys([*inputs, *question.targets, *_key_columns(question)]))
    profiles = profiles_of(columns, cells, question.kinds)
    sample = RowSample(len(columns), question.seed)
    groups = _Groups(question.group, cells)
    usable = []
    rows = 0
    for batch in table.batches(columns):
        late = batch.slice(max(table.history - rows, 0))
        if not late.num_rows:
            sample.update(batch)
            rows += batch.num_rows
            continue
        numbers = np.arange(rows + batch.num_rows - late.num_rows, rows + batch.num_rows)
        present = [profiles[name].update(late.column(name), numbers) for name in question.targets]
        observed = np.any(present, axis=0)
        usable.append(numbers[observed])
        used = late.take(arrow.array(np.flatnonzero(observed)))
        for name in columns:
            if name not in question.targets:
                profiles[name].update(used.column(name), usable[-1])
        groups.update(used)
        sample.update(batch)
        rows += batch.num_rows
        notify(rows)
    if rows == 0:
        raise TableError(f"{table.path} has column names but no rows.")
    if rows <= table.history:
        raise TableError(
            f"{table.path} has {rows} rows; --lags {table.history} needs more than that many."
        )
    with table.located():
        for name in question.targets:
            _check_target(profiles[name])
    found = np.concatenate(usable)
    if len(found) < FEWEST_ROWS:
        of_them = "" if len(found) == rows else f", {len(found)} of them with a target"
        raise TableError(
            f"{table.path} has {rows} row{'s' if rows > 1 else ''}{of_them}; at least "
            f"{FEWEST_ROWS} are needed to train, calibrate and test."
        )
    for name in question.targets:
        _check_target_varies(profiles[name])
    order = groups.found()
    untimed = 0
    if question.time is not None:
        with table.located():
            kind = question.kinds.get(question.time)
            clock = Clock(question.time, kind, cells)
            order = clock.of(table, decide(profiles[question.time], kind), found)
        found, order, untimed = _timed(table, question, found, order)
    history = min(table.history, rows)
    return Survey(rows, profiles, sample, found, order, groups.without, untimed, history)


def _timed(
    table: Table, question: Question, rows: np.ndarray, times: Array
) -> tuple[np.ndarray, Array, int]:
    """Return the rows that have a time, their times, and the number of the others.

    Raises:
        TableError: a row has no time, and nobody said that such rows are to be left out.

    """
    without = np.isnan(times)
    if without.any() and not question.skip_untimed:
        count = int(without.sum())
        raise TableError(
            f"--time {question.time}: {table.place(int(rows[np.argmax(without)]))} of "
            f"{table.path.name} has no time ({count} of {len(rows)} rows with targets); "
            "--skip-untimed leaves such rows out."
        )
    return rows[~without], times[~without], int(without.sum())


def plan(table: Table, question: Question, cells: Cells, surveyed: Survey) -> Plan:
    """Decide how columns and rows are used.

    Raises:
        TableError: an input is ambiguous, the rows cannot be split, or no input is left.

    """
    inputs = inputs_of(table, question)
    with table.located():
        decisions = [decide(surveyed.profiles[n], question.kinds.get(n)) for n in inputs]
    divided = question.division.of(len(surveyed.usable), surveyed.order)
    split = divided.split
    training = surveyed.sample.among(surveyed.usable[split.train])
    if question.time is not None and not question.trend:
        decisions = _without_trends(decisions, training, surveyed, split, cells)
    preprocessing, told = fit_preprocessing(
        decisions, surveyed.profiles, training, question.targets, cells
    )
    if not question.calibrated:
        split = split._replace(calibration=np.zeros(0, dtype=np.int64))
    notes = [*_index_notes(table, question), *_notes(question, surveyed, told)]
    doubts = {d.column: d.advice for d in decisions}
    doubts |= {name: surveyed.profiles[name].doubt for name in question.targets}
    warnings = [f"{column}: {doubt}" for column, doubt in doubts.items() if doubt]
    return Plan(
        preprocessing,
        tuple(told),
        surveyed.usable,
        divided._replace(split=split),
        tuple(notes),
        tuple(warnings),
    )


def _without_trends(
    decisions: list[Decision], training: Any, surveyed: Survey, split: Split, cells: Cells
) -> list[Decision]:
    """Leave out what only grows with time: all later rows would lie beyond what was learned."""
    rows = surveyed.sample.rows_among(surveyed.usable[split.train])
    times = np.asarray(surveyed.order)[np.searchsorted(surveyed.usable, rows)]
    found = []
    for decision in decisions:
        values = values_of(chunk_of(training, decision.column), decision, cells)
        trend = values is not None and grows(values.numbers, times)
        found.append(decision.without_trend() if trend else decision)
    return found


def write_arrays(
    table: Table, planned: Plan, folder: Path, keep: np.ndarray, notify: Notify
) -> Any:
    """Make the second pass: write `X.npy` (float32) and `y.npy` (float64) for the rows used.

    Args:
        table: the table to read.
        planned: the plan that determines what is written.
        folder: the folder to write to.
        keep: row numbers, ascending, of the rows whose cells are returned unchanged.
        notify: receives progress updates.

    Returns:
        A `pyarrow.Table` of the rows kept, with the input columns as they are in the file.

    """
    arrow = require("pyarrow", "reading a table")
    preprocessing = planned.preprocessing
    columns = preprocessing.columns
    n = len(planned.rows)
    kept: list[Any] = []
    with (
        _npy(folder / "X.npy", (n, len(preprocessing.names)), np.float32) as x_file,
        _npy(folder / "y.npy", (n, len(preprocessing.targets)), np.float64) as y_file,
    ):
        first = 0
        for batch in table.batches([*columns, *preprocessing.targets]):
            last = first + batch.num_rows
            used = _between(planned.rows, first, last)
            part = batch.take(arrow.array(used))
            with table.located(first):
                x_file.write(np.ascontiguousarray(preprocessing.inputs(part)).tobytes())
                y_file.write(np.ascontiguousarray(preprocessing.observed(part)).tobytes())
            shown = _between(keep, first, last)
            if len(shown):
                kept.append(batch.select(columns).take(arrow.array(shown)))
            first = last
            notify(first)
    return arrow.Table.from_batches(kept)


def _between(rows: np.ndarray, first: int, last: int) -> np.ndarray:
    """The ascending row numbers from `first` up to, but excluding, `last`, relative to `first`."""
    low, high = np.searchsorted(rows, (first, last))
    return np.asarray(rows[low:high] - first)


def _npy(path: Path, shape: tuple[int, int], dtype: Any) -> IO[bytes]:
    """Open a `.npy` file to be written row by row, so that rows need not stay in memory."""
    file = path.open("wb")
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _key_columns(question: Question) -> list[str]:
    return [name for name in (question.group, question.time) if name is not None]


class _Groups:
    """Group codes of the rows used, numbered in the order of their first occurrence."""

    def __init__(self, name: str | None, cells: Cells) -> None:
        self._name, self._cells = name, cells
        self._codes: dict[str | None, int] = {}
        self._of_rows: list[np.ndarray] = []
        self.without = 0

    def update(self, batch: Any) -> None:
        """Add rows that have targets."""
        if self._name is None:
            return
        coded = self._cells.categories(batch.column(self._name)).dictionary_encode("encode")
        codes = [
            self._codes.setdefault(text, len(self._codes)) for text in coded.dictionary.to_pylist()
        ]
        found = np.array(codes, np.int64)[coded.indices.to_numpy(False)]
        self._of_rows.append(found)
        self.without += int(np.count_nonzero(found == self._codes.get(None, -1)))

    def found(self) -> np.ndarray | None:
        """Return the codes, (rows used,), or None if there are no groups."""
        return None if self._name is None else np.concatenate(self._of_rows)


def _check_target(profile: Profile) -> None:
    """Check that a target holds usable numbers; values may be missing, but not in every row."""
    name, number = profile.name, profile.number
    if profile.rows and profile.present == 0:
        raise TableError(f"the target {name!r} is missing in every row.")
    if profile.type_name == "bool" or number is None:
        raise TableError(f"the target {name!r} is of type {profile.type_name}, not a number.")
    if number.unreadable:
        text, row = number.example or ("?", 0)
        of_them = f" ({number.unreadable} such cell{'s' if number.unreadable > 1 else ''})"
        raise CellError(
            f"the target {name!r} must hold numbers; found {cut(text)}",
            row,
            f"{of_them}. {_way_out(profile, number, text, row)}",
        )
    if number.infinite is not None:
        raise CellError(
            f"the target {name!r} holds an infinite number",
            number.infinite,
            "; if that means missing, use --missing-value inf --missing-value -inf",
        )
    far = max(number.high, -number.low)
    if far > LARGEST_TARGET:
        value = number.high if number.high == far else number.low
        raise TableError(
            f"the target {name!r} holds {value:g}, beyond what a network can be trained on "
            f"(±{LARGEST_TARGET:g}); change its unit or, if that means missing, use "
            f"--missing-value {value:g}"
        )


def _way_out(profile: Profile, number: Candidate, text: str, row: int) -> str:
    """Return advice on a target with `text` in a cell."""
    if not number.readable and not profile.obstacle:
        return "It is text; --targets must be columns of numbers."
    return mend_of(profile, number, text, row)


def _check_target_varies(profile: Profile) -> None:
    number = profile.number
    if number is not None and number.low == number.high:
        raise TableError(
            f"the target {profile.name!r} is always {number.low:g}: there is nothing to predict."
        )


def _notes(question: Question, surveyed: Survey, told: Iterable[Decision]) -> list[str]:
    notes = []
    if surveyed.untimed:
        notes.append(f"{surveyed.untimed} rows have no {question.time} and are left out")
    if surveyed.history:
        notes.append(f"the first {surveyed.history} rows lack earlier ones for --lags: left out")
    counted = surveyed.rows - surveyed.history
    lost = counted - len(surveyed.usable) - surveyed.untimed
    if lost:
        notes.append(f"{lost} of {counted} rows have no target and are left out")
    for name in question.targets:
        profile = surveyed.profiles[name]
        gaps = len(surveyed.usable) + surveyed.untimed - profile.present
        if gaps:
            notes.append(
                f"target {name}: {share_of(gaps, len(surveyed.usable))} missing, marginalized"
            )
    if surveyed.ungrouped:
        notes.append(
            f"group {question.group}: {surveyed.ungrouped} rows have none and count as one group"
        )
    dates = [d.column for d in told if d.kind == "date"]
    if dates and question.time is None and question.group is None:
        notes.append(
            f"{dates[0]} is a date, but rows are split at random; to evaluate predictions of the "
            f"future, use --time {shlex.quote(dates[0])}"
        )
    return notes


def _index_notes(table: Table, question: Question) -> list[str]:
    return [
        f"{name}: left out, the index of a data frame; --features or --as would use it"
        for name in index_left_out(table, question)
    ]
