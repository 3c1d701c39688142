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
@_options.data_argument
@_options.out_option
@_options.level_option
@_options.keep_option
@_options.strict_option
@table_options
@_options.as_json
def predict(
    model_dir: Path,
    data: Path,
    out: Path | None,
    level: float,
    keep: tuple[str, ...],
    strict: bool,
    reading: TableOptions,
    as_json: bool,
) -> None:
    """Predict the targets of every row of DATA, jointly.

    MODEL_DIR is a directory written by `keras-mvn fit`; nothing else is needed. DATA must have the
    columns the model was trained on; others are ignored. The output has, for each target, the
    columns <target>_mean, _stddev, and _lower and _upper of its central interval; then
    <target>_<other>_correlation for every pair. The table is read and written in batches, so it
    may be larger than memory.

    \b
    Examples:
      keras-mvn predict air new.csv --out predictions.parquet
      keras-mvn predict air new.csv --level 0.5 --keep station,date | head
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn.tables import columns_named
    from keras_mvn_cli._console import Output, RefusalError
    from keras_mvn_cli._findings import Findings
    from keras_mvn_cli._model import table_and_model
    from keras_mvn_cli._tables_out import frame_writer

    output = Output(as_json, quiet=out is None)
    findings = Findings(output, strict)
    table, model = table_and_model(data, model_dir, reading, findings)
    kept = tuple(dict.fromkeys(columns_named(keep, table.columns)))
    rows = 0
    with frame_writer(out) as write, output.progress(f"predicting {data.name}") as progress:
        for batch, normal in model.stream(table, findings, kept):
            frame = normal.to_frame(level=level)
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
        output.result({"rows": rows, "out": str(out), "level": level, **findings.to_dict()})
