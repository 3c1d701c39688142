"""The command `keras-mvn predict`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command
from keras_mvn_cli._table_options import TableOptions, table_options

__all__ = ["predict"]


@click.command(cls=Command)
@_options.model_argument
@_options.tables_argument
@_options.out_option
@_options.level_option
@_options.keep_option
@_options.strict_option
@click.option("--resume", is_flag=True, help="Of a folder: leave the predictions that are there.")
@table_options
@_options.as_json
def predict(
    model_dir: Path,
    data: Path,
    out: Path | None,
    level: float,
    keep: tuple[str, ...],
    strict: bool,
    resume: bool,
    reading: TableOptions,
    as_json: bool,
) -> None:
    """Predict the targets of every row of DATA, jointly.

    MODEL_DIR is a directory written by `keras-mvn fit`; nothing else is needed. DATA must have the
    columns the model was trained on; others are ignored. The output has, for each target, the
    columns <target>_mean, _stddev, and _lower and _upper of its central interval; then
    <target>_<other>_correlation for every pair. The table is read and written in batches, so it
    may be larger than memory.

    DATA may also be a folder with Parquet or Feather files; --out is then a folder, with a file of
    predictions for each, in the same order of rows. Files are written whole or not at all, and
    --resume goes on where a run was killed.

    \b
    Examples:
      keras-mvn predict air new.csv --out predictions.parquet
      keras-mvn predict air new.csv --level 0.5 --keep station,date | head
      keras-mvn predict air parts/ --out predictions/ --resume
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn_cli._console import Output, RefusalError
    from keras_mvn_cli._prediction import Request, predict_folder, predict_table

    output = Output(as_json, quiet=out is None)
    request = Request(model_dir, level, keep, strict, reading)
    if not data.is_dir():
        if resume:
            raise RefusalError("--resume is for a folder of tables; a single one is written whole.")
        found = predict_table(request, data, out, output)
    elif out is None:
        raise RefusalError(f"{data} is a folder; give --out, the folder for its predictions.")
    else:
        found = predict_folder(request, data, out, resume, output)
    if out is not None:
        output.result({"out": str(out), "level": level, **found})
