"""The command `keras-mvn evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command
from keras_mvn_cli._table_options import TableOptions, table_options

__all__ = ["evaluate"]


@click.command(cls=Command, short_help="Score predictions for rows whose targets are known.")
@_options.model_argument
@_options.data_argument
@_options.strict_option
@table_options
@_options.as_json
def evaluate(
    model_dir: Path, data: Path, strict: bool, reading: TableOptions, as_json: bool
) -> None:
    """Score the predictions for the rows of DATA, whose targets are known.

    Prints every score with its standard error: likelihood, energy and variogram scores, CRPS,
    errors of the means, coverage of joint regions and of intervals. Use rows that `fit` did not
    have; for the rows it held out itself, see metrics.json and the report in MODEL_DIR. Rows with
    missing targets are scored on the targets that were observed.

    \b
    Examples:
      keras-mvn evaluate air next_year.csv
      keras-mvn evaluate air next_year.csv --json | jq .scores.nll.mean
    """  # noqa: D301  (click's \b keeps these line breaks)
    import numpy as np

    from keras_mvn import scores
    from keras_mvn_cli._console import Output, RefusalError
    from keras_mvn_cli._findings import Findings
    from keras_mvn_cli._model import stream, table_and_model

    output = Output(as_json)
    findings = Findings(output, strict)
    table, model = table_and_model(data, model_dir, reading, findings)
    normals, observed = [], []
    rows = 0
    with output.progress(f"predicting {data.name}") as progress:
        for batch, normal in stream(model, table, findings, targets=True, what="scores"):
            with table.located(rows):
                y = model.preprocessing.observed(batch)
            rows += len(y)
            seen = ~np.isnan(y).all(axis=1)
            normals.append(normal[seen])
            observed.append(y[seen])
            progress(sum(map(len, observed)))
    if not sum(map(len, observed)):
        raise RefusalError(f"{data} has no row in which a target is observed.")
    scale = np.array(model.about["target_stddev"])
    found = scores.evaluate(
        type(normals[0]).concatenate(normals),
        np.concatenate(observed),
        missing="marginalize",
        target_scale=scale,
        resolution=model.about.get("target_resolution"),  # not in those of 0.1.0
    )
    output.say(str(found))
    output.result({**found.to_dict(), **findings.to_dict()})
