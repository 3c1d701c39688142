"""Predictions for one table, or for every table of a folder, written as they are made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

from keras_mvn._core.files import read_json, write_json
from keras_mvn.serving.fitted_model import FIT
from keras_mvn.tables import columns_named
from keras_mvn_cli._console import Output, RefusalError
from keras_mvn_cli._findings import Findings
from keras_mvn_cli._fit_directory import fitted, identity
from keras_mvn_cli._model import stream, table_and_model
from keras_mvn_cli._table_options import TableOptions
from keras_mvn_cli._tables_out import frame_writer

__all__ = ["Request", "predict_folder", "predict_table"]

SUFFIXES = {".parquet": ".parquet", ".pq": ".parquet", ".feather": ".feather", ".arrow": ".feather"}
"""Suffix of a table in a folder → suffix of its predictions."""

MADE_BY = "predictions.json"
"""File in a folder of predictions that says which model and options they are of."""


@final
class Request(NamedTuple):
    """What to predict with, and what to write."""

    model_dir: Path
    level: float
    keep: tuple[str, ...]
    strict: bool
    reading: TableOptions


def predict_table(request: Request, data: Path, out: Path | None, output: Output) -> dict[str, Any]:
    """Write the predictions for a table; return what was found in it.

    Raises:
        RefusalError: the predictions cannot be written.
        TableError: the table does not fit the model.

    """
    findings = Findings(output, request.strict)
    table, model = table_and_model(data, request.model_dir, request.reading, findings)
    kept = tuple(dict.fromkeys(columns_named(request.keep, table.columns)))
    rows = 0
    with frame_writer(out) as write, output.progress(f"predicting {data.name}") as progress:
        for batch, normal in stream(model, table, findings, kept):
            frame = normal.to_frame(level=request.level)
            twice = [name for name in kept if name in frame.columns]
            if twice:
                raise RefusalError(
                    f"--keep {','.join(twice)}: the predictions have a column of the same name; "
                    f"rename the column in {data}."
                )
            write(frame, {name: batch.column(name) for name in kept})
            rows += len(frame)
            progress(rows, f"{rows} rows")
    if out is not None:
        output.say(f"{rows} rows → {out}")
    return {"rows": rows, **findings.to_dict()}


def predict_folder(
    request: Request, data: Path, out: Path, resume: bool, output: Output
) -> dict[str, Any]:
    """Write the predictions for every Parquet or Feather file below a folder, in files alike.

    Each file is written whole or not at all, and those that are there are left when resumed.

    Raises:
        RefusalError: the folder holds no tables, or `out` holds something else.
        TableError: a table does not fit the model; the files before it stay.

    """
    if fitted(request.model_dir).get("options", {}).get("lags"):
        raise RefusalError(
            f"{data} is a folder, and the model was fitted with --lags, which reach back over the "
            "ends of files; give one table in the order of time."
        )
    if out.resolve() == data.resolve():
        raise RefusalError(f"--out {out} is the folder with the tables; give another one.")
    if out.suffix in (".csv", ".tsv", ".gz", *SUFFIXES):
        raise RefusalError(f"--out {out}: for a folder of tables, give a folder.")
    tables = dict(_tables(data, out))
    if not tables:
        raise RefusalError(f"{data} holds no {', '.join(SUFFIXES)} files.")
    _begin(request, out, resume)
    found, left = {}, 0
    for i, (table, predictions) in enumerate(tables.items()):
        if predictions.exists():
            left += 1
            continue
        predictions.parent.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in predictions.parent.glob(f".{predictions.name}.*"):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        output.say(f"{i + 1} of {len(tables)}: {table.relative_to(data)}")
        found[str(table.relative_to(data))] = predict_table(request, table, predictions, output)
    if left:
        output.say(f"{left} of {len(tables)} files were there, and left as they are")
    return {"files": found, "left": left}


def _tables(data: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each table in order of names, and where its predictions go."""
    taken = set()
    for path in sorted(data.rglob("*")):
        below = path.relative_to(data)
        hidden = any(part.startswith((".", "_")) for part in below.parts)
        hidden = hidden or path.resolve().is_relative_to(out.resolve())
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        predictions = out / below.with_suffix(SUFFIXES[path.suffix.lower()])
        if predictions in taken:
            raise RefusalError(
                f"{path}: another table has the same name with another suffix; the predictions of "
                "both would be one file."
            )
        taken.add(predictions)
        yield path, predictions


def _begin(request: Request, out: Path, resume: bool) -> None:
    """Create the folder, or check that what it holds is of the same model and options.

    Raises:
        RefusalError: it holds something else, or predictions that nobody asked to resume.

    """
    made_by = {
        "model": identity(request.model_dir / FIT)["sha256"],
        "level": request.level,
        "keep": list(request.keep),
        "reading": request.reading.to_json(),
    }
    if out.exists() and not out.is_dir():
        raise RefusalError(f"--out {out} is a file; for a folder of tables, give a folder.")
    if out.is_dir() and any(out.iterdir()):
        there = out / MADE_BY
        if not there.is_file():
            raise RefusalError(f"--out {out} is not empty, and holds no earlier predictions.")
        if not resume:
            raise RefusalError(f"--out {out} holds predictions; --resume adds those that lack.")
        if read_json(there) != made_by:
            raise RefusalError(
                f"--resume: {out} holds predictions of another model or with other options; give "
                "another folder."
            )
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / MADE_BY, made_by)
    except OSError as error:
        raise RefusalError(f"--out {out}: {error.strerror}") from error
