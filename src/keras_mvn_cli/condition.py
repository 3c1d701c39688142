"""The command `keras-mvn condition`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command
from keras_mvn_cli._table_options import TableOptions, table_options

__all__ = ["condition"]


@click.command(cls=Command)
@_options.model_argument
@_options.data_argument
@click.option(
    "--given",
    "given",
    multiple=True,
    required=True,
    metavar="TARGET=VALUE",
    help="A measured target: its value, or @COLUMN to take the value of each row from DATA. "
    "Repeat for several targets, or separate them with commas.",
)
@_options.out_option
@_options.level_option
@_options.strict_option
@table_options
@_options.as_json
def condition(
    model_dir: Path,
    data: Path,
    given: tuple[str, ...],
    out: Path | None,
    level: float,
    strict: bool,
    reading: TableOptions,
    as_json: bool,
) -> None:
    """Predict the other targets, given that some were measured.

    This is what a joint prediction is for: once one target is known, the others are known better,
    and the more so the more strongly they are correlated with it. Rows in which the value of
    @COLUMN is missing are predicted without it. The output has the columns of `keras-mvn predict`,
    for the remaining targets.

    \b
    Examples:
      keras-mvn condition air new.csv --given max_NO2=31.5
      keras-mvn condition air new.csv --given max_NO2=@max_NO2 --given max_CO=@max_CO --out rest.csv
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn.serving.conditioning import conditioned
    from keras_mvn_cli._conditioning import parsed
    from keras_mvn_cli._console import Output
    from keras_mvn_cli._findings import Findings
    from keras_mvn_cli._model import stream, table_and_model
    from keras_mvn_cli._tables_out import frame_writer

    output = Output(as_json, quiet=out is None)
    findings = Findings(output, strict)
    table, model = table_and_model(data, model_dir, reading, findings)
    known = parsed(given, model.targets, table)
    rows = 0
    with frame_writer(out) as write, output.progress(f"predicting {data.name}") as progress:
        for batch, normal in stream(model, table, findings, known.columns):
            with table.located(rows):
                values = known.values(batch, model.preprocessing)
            frame = conditioned(normal, values).to_frame(level=level)
            write(frame, {})
            rows += len(frame)
            progress(rows, f"{rows} rows")
    if out is not None:
        output.say(f"{rows} rows → {out}")
        told = {"rows": rows, "out": str(out), "given": list(given), "level": level}
        output.result({**told, **findings.to_dict()})
