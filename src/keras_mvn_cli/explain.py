"""The command `keras-mvn explain`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command
from keras_mvn_cli._table_options import TableOptions, table_options

__all__ = ["explain"]


@click.command(cls=Command, short_help="Rank the inputs that move spreads and correlations.")
@_options.model_argument
@_options.data_argument
@click.option(
    "--of",
    "wanted",
    multiple=True,
    metavar="QUANTITY",
    help="What to explain: mean:TARGET, stddev:TARGET, correlation:TARGET,OTHER, or volume. "
    "Repeatable. Default: the standard deviation of every target, the correlation of every pair "
    "(of up to four targets), and the volume of joint regions.",
)
@click.option(
    "--rows",
    type=click.IntRange(20),
    default=500,
    show_default=True,
    help="Rows of DATA to use, drawn at random.",
)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True,
              help="Permutations of each input.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@table_options
@_options.as_json
def explain(
    model_dir: Path,
    data: Path,
    wanted: tuple[str, ...],
    rows: int,
    repeats: int,
    seed: int,
    reading: TableOptions,
    as_json: bool,
) -> None:
    """Rank the columns of DATA by how much they move what the model says of its errors.

    Which inputs decide where predictions are uncertain, and where errors move together? The values
    of one column at a time are exchanged between rows; what is printed is the spread that a
    standard deviation, a correlation or the log-volume owes to the column, in its own unit. Rows
    need no targets. It explains the model, not the world: of two columns that say the same, the
    model may use either.

    \b
    Examples:
      keras-mvn explain air new.csv
      keras-mvn explain air new.csv --of stddev:max_NO2 --of correlation:max_NO2,max_O3
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn.explain import permutation_importance
    from keras_mvn_cli._console import Output
    from keras_mvn_cli._explaining import quantities, sampled, shown
    from keras_mvn_cli._findings import Findings
    from keras_mvn_cli._model import table_and_model

    output = Output(as_json)
    findings = Findings(output, strict=False)
    table, model = table_and_model(data, model_dir, reading, findings)
    chosen = quantities(wanted, model.targets)
    with output.progress(f"reading {data.name}"):
        x = sampled(table, model, rows, seed)
    with output.progress("predicting"):
        found = permutation_importance(model, x, chosen, repeats, seed)
    output.say(shown(found, len(x)))
    output.result(
        {
            "rows": len(x),
            "quantities": {
                name: {
                    "spread": float(found.spread[i]),
                    "inputs": dict(found.ranked(i)),
                }
                for i, name in enumerate(found.quantities)
            },
        }
    )
