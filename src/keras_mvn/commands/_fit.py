"""What `keras-mvn fit` does: read, prepare, train, assess, write."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from keras_mvn import _fitting_data
from keras_mvn._fitting import predict_normal
from keras_mvn._interrupts import held_back
from keras_mvn._networks import Candidate, constant_covariance, independent
from keras_mvn._optional import require
from keras_mvn._streaming import StreamingMoments
from keras_mvn.calibration import Recalibration
from keras_mvn.commands import _assessing, _options
from keras_mvn.commands._console import INTERRUPTED, Output, RefusalError
from keras_mvn.commands._folder import FIT, FORMAT, FitFolder, identity, read_json, write_json
from keras_mvn.commands._model import (
    MEMBERS,
    MODEL,
    PREPROCESSING,
    recalibrated,
    save_calibration,
)
from keras_mvn.commands._networks import Arrays, Network, Settings, reuse, train
from keras_mvn.commands._reporting import write_history, write_report
from keras_mvn.commands._structures import structure_of, wasteful
from keras_mvn.commands._versions import versions
from keras_mvn.distribution import MultivariateNormal
from keras_mvn.tables import (
    Cells,
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
from keras_mvn.types import Array

__all__ = ["Prepared", "run"]

MOST_TEST_ROWS = 20_000
"""Kept and assessed: standard errors of coverage are then 0.2 %."""

NO_MATTER = ("out", "resume", "overwrite", "as_json")
"""Options that a resumed fit may change."""

SHARE_OF_MODEL = 0.7
"""Of a time budget; the baselines have the rest."""

REQUEST, PREPARED, ROWS = "request.json", "prepared.json", "rows.npz"


class Prepared(NamedTuple):
    """The table as it is trained on."""

    preprocessing: Preprocessing
    arrays: Arrays
    rows: np.ndarray
    """Numbers in the file of the rows used."""
    raw: Any
    """`pyarrow.Table` of the input columns of the test rows."""
    about: dict[str, Any]
    """Decisions and notes, in words; total of rows."""


def run(given: dict[str, Any], context: click.Context) -> None:
    """Make a fit directory.

    Raises:
        RefusalError: options or folders that are wrong.
        TableError: a table that is.

    """
    began = time.monotonic()
    output = Output(given["as_json"])
    folder = FitFolder(Path(given["out"]))
    folder.check(given["resume"], given["overwrite"])
    _check(given)
    prepared = _prepared(given, folder, output)
    try:
        with held_back(output.interrupting) as interruption:
            networks, interrupted = _networks(given, prepared, folder, output)
            metrics = _assessed(prepared, networks, folder, output)
            about = _about(given, prepared, networks, interrupted, time.monotonic() - began)
            _write(folder.partial, prepared, networks["model"], given["calibration"], about)
            folder.finish()
            output.say(_assessing.comparison(metrics))
            with output.progress("writing the report"):
                write_report(folder.target)
    except KeyboardInterrupt:
        if not folder.partial.exists():
            raise
        raise KeyboardInterrupt(f"{folder.partial} is kept; --resume goes on with it") from None
    output.say(f"{folder.target}: model, metrics.json, report.html; {about['seconds']:.0f} s")
    output.result({"out": str(folder.target), "fit": about, "metrics": metrics})
    if interrupted:
        output.say("interrupted: the best weights until then were kept")
    if interruption.requested or interrupted:
        context.exit(INTERRUPTED)


def _check(given: Mapping[str, Any]) -> None:
    """Options that can be judged before the table is read."""
    structure_of(given["covariance"])
    _options.reading_of(given["separator"], given["encoding"])
    _widths(given["hidden"])
    if given["group"] and given["time"]:
        raise RefusalError("--group and --time exclude each other.")
    for entry in given["kinds"]:
        if "=" not in entry:
            raise RefusalError(f"--as {entry}: expected COLUMN=KIND, such as station=category.")


def _widths(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1:
        raise RefusalError(f"--hidden {text}: expected widths of layers, such as 64,64.")
    return widths


# --- the table -----------------------------------------------------------------------------------


def _prepared(given: dict[str, Any], folder: FitFolder, output: Output) -> Prepared:
    request = _request(given)
    if given["resume"] and (folder.work / PREPARED).is_file():
        _require_same(request, read_json(folder.work / REQUEST))
        output.say(f"going on with {folder.partial}")
        return _reopened(folder)
    table = open_table(given["data"], _options.reading_of(given["separator"], given["encoding"]))
    question, cells = _question(given, table), Cells(given["decimal"], tuple(given["missing"]))
    with output.progress(f"reading {table.path.name}") as progress:
        found = survey(table, question, cells, lambda n: progress(n, f"{n} rows"))
    planned = plan(table, question, cells, found)
    decided = [_words(d.column, d.kind, d.why) for d in planned.decisions]
    _tell(output, table, found.rows, decided, planned.notes)
    _tell_split(output, planned.split, given)
    warned = [
        *_starved(planned.split, given),
        *wasteful(given["covariance"], len(question.targets)),
    ]
    for text in warned:
        output.warn(text)
    folder.begin()
    try:
        write_json(folder.work / REQUEST, request)
        test = _thinned(planned.split.test)
        with output.progress("preparing", total=found.rows) as progress:
            raw = write_arrays(table, planned, folder.work, planned.rows[test], progress)
        _keep(folder, planned.split._replace(test=test), planned.rows, raw)
        planned.preprocessing.save(folder.partial / PREPROCESSING)
        about = {
            "decisions": [*table.notes, *decided, *planned.notes, *warned],
            "file": identity(table.path),
            "rows_in_file": found.rows,
            "test_rows": len(planned.split.test),
        }
        write_json(folder.work / PREPARED, about)
    except BaseException:
        folder.discard()
        raise
    return _reopened(folder)


def _question(given: Mapping[str, Any], table: Table) -> Question:
    def named(option: str) -> tuple[str, ...]:
        return columns_named(given[option], table.columns)

    return Question(
        targets=named("targets"),
        features=named("features") or None,
        drop=named("drop"),
        kinds=dict(entry.rpartition("=")[::2] for entry in given["kinds"]),
        group=given["group"],
        time=given["time"],
        calibrated=given["calibration"] != "none",
        seed=given["seed"],
    )


def _request(given: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a fit to go on."""
    path = Path(given["data"])
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
    except OSError:
        stamp = []  # `open_table` says why
    kept = {key: value for key, value in given.items() if key not in NO_MATTER}
    plain = json.loads(json.dumps({**kept, "data": str(path.resolve())}))
    return {"options": plain, "file": stamp}


def _require_same(request: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    now, then = request["options"], earlier["options"]
    differing = [name for name in now if now[name] != then.get(name)]
    if differing:
        raise RefusalError(
            f"--resume: {', '.join(differing)} differ from the fit that was begun; repeat its "
            "command, or start anew with --overwrite."
        )
    if request["file"] != earlier["file"]:
        raise RefusalError(
            f"--resume: {now['data']} has changed since; start anew with --overwrite."
        )


def _keep(folder: FitFolder, split: Split, rows: np.ndarray, raw: Any) -> None:
    parquet = require("pyarrow.parquet", "keras-mvn fit")
    parts: dict[str, Any] = split._asdict()
    np.savez_compressed(folder.work / ROWS, rows=rows, **parts)
    parquet.write_table(raw, folder.work / "x.parquet")


def _reopened(folder: FitFolder) -> Prepared:
    parquet = require("pyarrow.parquet", "keras-mvn fit")
    preprocessing = Preprocessing.load(folder.partial / PREPROCESSING)
    with np.load(folder.work / ROWS) as file:
        split, rows = Split(*(file[name] for name in Split._fields)), file["rows"]
    return Prepared(
        preprocessing,
        Arrays.open(folder.work, split, preprocessing.targets),
        rows,
        parquet.read_table(folder.work / "x.parquet"),
        read_json(folder.work / PREPARED),
    )


def _thinned(rows: np.ndarray) -> np.ndarray:
    return rows[:: max(1, -(-len(rows) // MOST_TEST_ROWS))]


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
"""Columns told on the screen."""


def _tell_split(output: Output, split: Split, given: Mapping[str, Any]) -> None:
    how = "at random"
    if given["group"]:
        how = f"by whole groups of {given['group']}"
    if given["time"]:
        how = f"in order of {given['time']}"
    parts = ", ".join(f"{len(rows)} {name}" for name, rows in split._asdict().items() if len(rows))
    output.say(f"  rows {how}: {parts}")


def _starved(split: Split, given: Mapping[str, Any]) -> list[str]:
    """That training has far fewer rows than it should, as with few groups."""
    rows, train = sum(map(len, split)), len(split.train)
    wanted = shares(given["calibration"] != "none")[0]
    if train >= FEW * wanted * rows:
        return []
    why = f"groups of {given['group']} are few, and stay whole" if given["group"] else "of times"
    return [f"{train} of {rows} rows are for training, not {100 * wanted:.0f} %: {why}"]


FEW = 2 / 3
"""Of the rows that training should have: fewer are worth a warning."""


# --- training ------------------------------------------------------------------------------------


def _networks(
    given: Mapping[str, Any], prepared: Prepared, folder: FitFolder, output: Output
) -> tuple[dict[str, Network], bool]:
    """The model and its baselines, and whether ^C cut training short."""
    baselines = not given["no_baselines"]
    model = _settings(given, SHARE_OF_MODEL if baselines else 1.0)
    trained = {"model": train(model, prepared.arrays, folder.work / "model", output, "the model")}
    if trained["model"].interrupted:
        return trained, True
    _tell_selection(output, trained["model"], prepared.arrays)
    if not baselines:
        return trained, False
    for name, settings, candidate in _baselines(given, model, len(prepared.arrays.targets)):
        place = folder.work / name.replace(" ", "_")
        reuse(folder.work / "model", candidate, place)
        try:
            network = train(settings, prepared.arrays, place, output, f"baseline: {name}")
        except KeyboardInterrupt:
            return trained, True
        if network.interrupted:
            return trained, True
        trained[name] = network
    return trained, False


def _settings(given: Mapping[str, Any], share: float) -> Settings:
    budget = given["time_budget"]
    return Settings(
        covariance=given["covariance"],
        calibration=None if given["calibration"] == "none" else given["calibration"],
        seed=given["seed"],
        members=given["members"],
        time_budget=None if budget is None else share * budget,
        options={
            "loss": given["loss"],
            "hidden": _widths(given["hidden"]),
            "dropout": given["dropout"],
            "epochs": given["epochs"],
            "patience": given["patience"],
            "batch_size": given["batch_size"] or "auto",
            "learning_rate": given["learning_rate"],
        },
    )


def _baselines(
    given: Mapping[str, Any], model: Settings, event_size: int
) -> Iterator[tuple[str, Settings, Candidate]]:
    """Name, settings, and the candidate of "auto" that is the same network."""
    budget = given["time_budget"]
    share = None if budget is None else 0.5 * (1.0 - SHARE_OF_MODEL) * budget
    structures = {
        _assessing.DIAGONAL: independent(),
        _assessing.CONSTANT: constant_covariance(event_size),
    }
    for name, candidate in structures.items():
        yield (
            name,
            Settings(
                candidate.covariance,
                model.calibration,
                model.seed,
                candidate.constant,
                members=model.members,
                time_budget=share,
                options=model.options,
            ),
            candidate,
        )


def _tell_selection(output: Output, network: Network, arrays: Arrays) -> None:
    if network.selection:
        d = arrays.targets_in_a_row("validation")
        tried = ", ".join(
            f"{one['name']} {one['validation_nll'] / d:.3f}" for one in network.selection
        )
        output.say(f"  structures by NLL per target, of the validation rows: {tried}")


# --- afterwards ----------------------------------------------------------------------------------


def _assessed(
    prepared: Prepared, networks: Mapping[str, Network], folder: FitFolder, output: Output
) -> dict[str, Any]:
    """Write `test/` and `metrics.json`; returns the latter."""
    test = prepared.arrays.split.test
    x = np.asarray(prepared.arrays.x[test])
    y = np.asarray(prepared.arrays.y[test])
    seen = ~np.isnan(y).all(axis=0)
    with output.progress("judging the test rows"):
        plain = {name: predict_normal(one.members, x) for name, one in networks.items()}
        found = dict(_compared(networks, plain))
        shown = prepared.preprocessing.shown(prepared.raw)
        _assessing.save_test(folder.partial / "test", found, y, shown, prepared.rows[test])
        baselines = {
            name: normal
            for name, normal in plain.items()
            if name != _assessing.MODEL and networks[name].calibration is not None
        }
        scale = _target_stddev(prepared)[seen]
        evaluations, uncalibrated = (
            _assessing.assess(_margins(normals, seen), y[:, seen], scale)
            for normals in (found, baselines)
        )
    return _assessing.write_metrics(folder.partial, evaluations, uncalibrated)


def _compared(
    networks: Mapping[str, Network], plain: Mapping[str, MultivariateNormal]
) -> Iterator[tuple[str, MultivariateNormal]]:
    """Name → predictions, in the order of the report; baselines recalibrated as the model is."""
    for name in (_assessing.MODEL, _assessing.DIAGONAL, _assessing.CONSTANT):
        if name not in networks:
            continue
        calibration = networks[name].calibration
        yield name, recalibrated(calibration, plain[name])
        if name == _assessing.MODEL and calibration is not None:
            yield _assessing.UNCALIBRATED, plain[name]


def _margins(
    normals: Mapping[str, MultivariateNormal], seen: np.ndarray
) -> Mapping[str, MultivariateNormal]:
    """Of the targets that some test row has; as they are where these are all."""
    if seen.all():
        return normals
    return {name: normal.marginal(np.flatnonzero(seen)) for name, normal in normals.items()}


def _target_stddev(prepared: Prepared) -> Array:
    """Of the training rows: (d,)."""
    arrays = prepared.arrays
    found = StreamingMoments(arrays.y.shape[1], rank=0)
    training = _fitting_data.Table(arrays.x, arrays.y, None, arrays.split.train)
    found.update_all(training.targets())
    return np.sqrt(found.variance)


def _about(
    given: Mapping[str, Any],
    prepared: Prepared,
    networks: Mapping[str, Network],
    interrupted: bool,
    seconds: float,
) -> dict[str, Any]:
    """What goes into `fit.json`."""
    model, split = networks["model"], prepared.arrays.split
    rows = {name: len(part) for name, part in split._asdict().items()}
    rows["test"] = prepared.about["test_rows"]
    return {
        "format": FORMAT,
        "command": shlex.join(["keras-mvn", *sys.argv[1:]]),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "interrupted": interrupted,
        "resumed": bool(given["resume"]),
        "source": Path(given["data"]).name,
        "file": prepared.about.get("file"),
        "rows_in_file": prepared.about["rows_in_file"],
        "rows": rows,
        "targets": list(prepared.preprocessing.targets),
        "target_stddev": _target_stddev(prepared).tolist(),
        "columns": prepared.preprocessing.columns,
        "inputs": prepared.preprocessing.names,
        "covariance": model.structure,
        "calibration": _in_words(model.calibration, given["calibration"], rows),
        "members": len(model.members),
        "selection": [_plain(one) for one in model.selection],
        "decisions": prepared.about["decisions"],
        "options": _request(given)["options"],
        "seed": given["seed"],
        "versions": versions(),
    }


def _plain(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the selection, in what JSON knows."""
    kept = ("name", "validation_nll", "epochs", "seconds")
    values = {name: candidate[name] for name in kept}
    return {
        k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()
    }


def _in_words(calibration: Recalibration | None, method: str, rows: Mapping[str, int]) -> str:
    if calibration is None:
        return ""
    of_rows = f"{rows['calibration']} calibration rows"
    if method not in _FACTORS:
        return f"{method}, fitted to {of_rows}."
    factor = calibration.get_config()["temperature"]
    return f"All standard deviations were multiplied by {factor:.3f}, {_FACTORS[method]} {of_rows}."


_FACTORS = {
    "coverage": "the factor with which 90 % regions hold 90 % of",
    "temperature": "the likeliest factor on",
}


def _write(
    folder: Path, prepared: Prepared, model: Network, method: str, about: dict[str, Any]
) -> None:
    """Everything that is not there yet."""
    if len(model.members) == 1:
        model.members[0].save(folder / MODEL)
    else:
        (folder / MEMBERS).mkdir(exist_ok=True)
        for i, member in enumerate(model.members):
            member.save(folder / MEMBERS / f"member_{i:02d}.keras")
    save_calibration(model.calibration, method, folder)
    write_history(folder / "history.csv", model.histories)
    parts: dict[str, Any] = {
        name: prepared.rows[part] for name, part in prepared.arrays.split._asdict().items()
    }
    np.savez_compressed(folder / "split.npz", **parts)
    write_json(folder / FIT, about)
