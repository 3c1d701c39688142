"""The first step of `keras-mvn fit`: from the table to arrays on disk, with a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_mvn._core.files import read_json, write_json
from keras_mvn._core.optional import require
from keras_mvn._training.data import thinned
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.estimator._cross_fitting import AUTO_FOLDS, auto_up_to
from keras_mvn.serving.fitted_model import PREPROCESSING
from keras_mvn.tables import (
    Cells,
    Plan,
    Preprocessing,
    Question,
    Split,
    Table,
    columns_named,
    open_table,
    plan,
    shares,
    survey,
    write_arrays,
)
from keras_mvn_cli._console import Output, RefusalError
from keras_mvn_cli._fit_directory import FitFolder, identity
from keras_mvn_cli._lags import kinds_of, with_lags
from keras_mvn_cli._structures import wasteful
from keras_mvn_cli.fitting.isolated import isolated_values
from keras_mvn_cli.fitting.networks import Arrays
from keras_mvn_cli.fitting.options import FitOptions

__all__ = ["Prepared", "prepared_table", "request_of"]

MOST_TEST_ROWS = 20_000
"""Maximum number of test rows kept and scored; coverage then has standard errors of 0.2 %."""

MOST_NAMES = 200
"""Number of targets up to which the names of the predictions' columns are checked."""

NO_MATTER = ("out", "resume", "overwrite", "as_json")
"""Options that may differ when a fit is resumed."""

REQUEST, PREPARED, ROWS, CLOCK = "request.json", "prepared.json", "rows.npz", "seconds.json"


class Prepared(NamedTuple):
    """The table, prepared for training."""

    preprocessing: Preprocessing
    arrays: Arrays
    rows: np.ndarray
    """Numbers of the rows used, as in the file."""
    raw: Any
    """`pyarrow.Table` of the input columns of the test rows."""
    about: dict[str, Any]
    """Decisions and notes, in words; total number of rows."""
    seconds: float = 0.0
    """Time the fit had taken before it was killed."""


def prepared_table(options: FitOptions, folder: FitFolder, output: Output) -> Prepared:
    """Read the table and write what training needs; with --resume, reopen what was written.

    Raises:
        RefusalError: what was written belongs to another command or another table.
        TableError: the table cannot be used.

    """
    request = request_of(options)
    if options.resume and (folder.work / PREPARED).is_file():
        _require_same(request, read_json(folder.work / REQUEST))
        output.say(f"resuming {folder.partial}")
        return _reopened(folder)._replace(seconds=_seconds_before(folder.work))
    cells = options.reading.cells(Cells())
    table = open_table(options.data, options.reading.reading())
    table = with_lags(table, options.to_json(), cells)
    question = _question(options, table)
    with output.progress(f"reading {table.path.name}") as progress:
        found = survey(table, question, cells, lambda n: progress(n, f"{n} rows"))
    planned = plan(table, question, cells, found)
    _check_names(question.targets)
    decided = [_words(d.column, d.kind, d.why) for d in planned.decisions]
    _tell(output, table, found.rows, decided, planned.notes)
    _tell_split(output, planned.split, options)
    warned = [
        *planned.warnings,
        *_starved(planned.split, options),
        *wasteful(options.covariance, len(question.targets)),
    ]
    for text in warned:
        output.warn(text)
    folder.begin()
    try:
        write_json(folder.work / REQUEST, request)
        test = thinned(planned.split.test, MOST_TEST_ROWS)
        with output.progress("preparing", total=found.rows) as progress:
            raw = write_arrays(table, planned, folder.work, planned.rows[test], progress)
        _keep(folder, planned, planned.split._replace(test=test), raw)
        planned.preprocessing.save(folder.partial / PREPROCESSING)
        arrays = _arrays(folder, planned.preprocessing)
        isolated = []
        if options.isolated != "keep":
            isolated = isolated_values(table, arrays, planned.rows, planned.preprocessing)
        for text in isolated:
            output.warn(text)
        about = {
            "decisions": [*table.notes, *decided, *planned.notes, *warned, *isolated],
            "file": identity(table.path),
            "rows_in_file": found.rows,
            "test_rows": len(planned.split.test),
            "folds": planned.divided.folds,
        }
        write_json(folder.work / PREPARED, about)
    except BaseException:
        folder.discard()
        raise
    return _reopened(folder)


def _check_names(targets: Sequence[str]) -> None:
    """Check that the predictions can be written: their columns are named after the targets."""
    d = len(targets)
    if d > MOST_NAMES:
        return
    one = MultivariateNormal(np.zeros((1, d)), covariance=np.eye(d)[None], target_names=targets)
    try:
        one.to_frame()
    except ValueError as error:
        raise RefusalError(f"--targets: {error} Rename one of the targets.") from error


def _question(options: FitOptions, table: Table) -> Question:
    def named(option: str) -> tuple[str, ...]:
        return columns_named(getattr(options, option), table.columns)

    return Question(
        targets=named("targets"),
        features=named("features") or None,
        drop=named("drop"),
        kinds=kinds_of(options.to_json()),
        group=options.group,
        time=options.time,
        skip_untimed=options.skip_untimed,
        trend=options.trend,
        calibrated=options.calibrated,
        folds=AUTO_FOLDS if options.cv == "auto" else int(options.cv),
        fold_up_to=auto_up_to() if options.cv == "auto" else np.inf,
        seed=options.seed,
    )


def request_of(options: FitOptions) -> dict[str, Any]:
    """Return what must be unchanged for a fit to be resumed."""
    status = options.data.stat()
    kept = {key: value for key, value in options.to_json().items() if key not in NO_MATTER}
    return {"options": kept, "file": [status.st_size, status.st_mtime_ns]}


def _require_same(request: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    now, then = request["options"], earlier["options"]
    differing = [name for name in now if now[name] != then.get(name)]
    if differing:
        raise RefusalError(
            f"--resume: the fit was begun with other values of {', '.join(differing)}; repeat its "
            "command, or start over with --overwrite."
        )
    if request["file"] != earlier["file"]:
        raise RefusalError(
            f"--resume: {now['data']} has changed since; start over with --overwrite."
        )


def _keep(folder: FitFolder, planned: Plan, split: Split, raw: Any) -> None:
    parquet = require("pyarrow.parquet", "keras-mvn fit")
    folds, together = planned.divided.folds, planned.divided.together
    kept: dict[str, Any] = {"rows": planned.rows, "folds": folds, **split._asdict()}
    if folds and together is not None:
        kept["together"] = together
    np.savez_compressed(folder.work / ROWS, **kept)
    parquet.write_table(raw, folder.work / "x.parquet")


def _reopened(folder: FitFolder) -> Prepared:
    parquet = require("pyarrow.parquet", "keras-mvn fit")
    preprocessing = Preprocessing.load(folder.partial / PREPROCESSING)
    with np.load(folder.work / ROWS) as file:
        rows = file["rows"]
    return Prepared(
        preprocessing,
        _arrays(folder, preprocessing),
        rows,
        parquet.read_table(folder.work / "x.parquet"),
        read_json(folder.work / PREPARED),
    )


def _arrays(folder: FitFolder, preprocessing: Preprocessing) -> Arrays:
    with np.load(folder.work / ROWS) as file:
        split = Split(*(file[name] for name in Split._fields))
        folds = int(file["folds"])
        together = file.get("together")
    return Arrays.open(folder.work, split, preprocessing.targets, folds, together)


def _seconds_before(work: Path) -> float:
    """Return the seconds until the killed fit last wrote a file; the pause since does not count."""
    clock = work / CLOCK
    before = read_json(clock) if clock.is_file() else 0.0
    start = (clock if clock.is_file() else work / REQUEST).stat().st_mtime
    spent = before + max(file.stat().st_mtime for file in work.rglob("*")) - start
    write_json(clock, spent)
    return float(spent)


def _words(column: str, kind: str, why: str) -> str:
    return f"{column}: {kind}, {why}"


def _tell(output: Output, table: Table, rows: int, decided: list[str], notes: Any) -> None:
    about = f" ({', '.join(table.notes)})" if table.notes else ""
    output.say(f"{table.path.name}: {rows} rows, {len(table.columns)} columns{about}")
    for line in [*decided[:MOST_LINES], *notes]:
        output.say(f"  {line}")
    if len(decided) > MOST_LINES:
        output.say(f"  … {len(decided) - MOST_LINES} more: see fit.json")


MOST_LINES = 60
"""Maximum number of columns listed on the screen."""


def _tell_split(output: Output, split: Split, options: FitOptions) -> None:
    how = "at random"
    if options.group:
        how = f"by whole groups of {options.group}"
    if options.time:
        how = f"in order of {options.time}"
    parts = ", ".join(f"{len(rows)} {name}" for name, rows in split._asdict().items() if len(rows))
    if not len(split.validation):
        parts = parts.replace(" train", " for cross-fitting")
    output.say(f"  rows split {how}: {parts}")


def _starved(split: Split, options: FitOptions) -> list[str]:
    """Return a warning if training has far fewer rows than it should, as with few groups."""
    rows, train = sum(map(len, split)), len(split.train)
    wanted = shares(options.calibrated, cross_fitted=not len(split.validation))[0]
    if train >= FEW * wanted * rows:
        return []
    why = "rows with equal times stay together"
    if options.group:
        why = f"groups of {options.group} are few, and stay whole"
    return [f"{train} of {rows} rows are for training, not {100 * wanted:.0f} %: {why}"]


FEW = 2 / 3
"""Warn if training has less than this fraction of the rows it should have."""
