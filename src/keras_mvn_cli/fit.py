"""`keras-mvn fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keras_mvn_cli import _options

__all__ = ["fit"]

CALIBRATIONS = ("coverage", "temperature", "per_target", "matrix", "none")
LOSSES = ("balanced", "nll", "faithful", "beta", "natural_gradient", "energy_score", "crps")


@click.command(short_help="Learn to predict several columns of a table jointly.")
@_options.data_argument
@click.option("--targets", required=True, metavar="A,B,C", help="Columns to predict: numbers.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Fit directory to make."
)
@click.option("--features", metavar="A,B,C", help="Columns to predict from; by default all others.")
@click.option("--drop", metavar="A,B,C", help="Columns to leave out.")
@click.option(
    "--as",
    "kinds",
    multiple=True,
    metavar="COLUMN=KIND",
    help="What a column is: number, boolean, category, date, or 'time of day'. Repeat.",
)
@click.option(
    "--missing-value",
    "missing",
    multiple=True,
    metavar="TEXT",
    help="Cells with this content are missing, such as -200. Repeat.",
)
@click.option(
    "--group", metavar="COLUMN", help="Rows of a group stay together in the split; no input."
)
@click.option(
    "--time", metavar="COLUMN", help="Split in this order: the last rows are for testing."
)
@click.option(
    "--covariance",
    default="auto",
    show_default=True,
    help="Structure: cholesky, precision_cholesky, correlation, symmetric, diagonal, isotropic, "
    "low_rank:RANK, banded:BANDWIDTH; auto takes the best on the validation rows.",
)
@click.option(
    "--calibration",
    type=click.Choice(CALIBRATIONS),
    default="coverage",
    show_default=True,
    help="Of the covariances, on rows held out for it: one factor, that with which 90 % regions "
    "cover 90 % or the most likely one; one factor per target; or a matrix.",
)
@click.option(
    "--members",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Networks of an ensemble, which also knows where it has seen little.",
)
@click.option("--loss", type=click.Choice(LOSSES), default="balanced", show_default=True)
@click.option("--hidden", default="64,64", show_default=True, help="Widths of the hidden layers.")
@click.option("--dropout", type=_options.FiniteRange(0, 1, max_open=True), default=0.0)
@click.option("--epochs", type=click.IntRange(1), default=1000, show_default=True, help="At most.")
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="Epochs without a better validation loss after which training stops.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Rows in a step; by default by size.")
@click.option(
    "--learning-rate", type=_options.FiniteRange(0, min_open=True), default=5e-3, show_default=True
)
@click.option(
    "--time-budget",
    type=_options.FiniteRange(0, min_open=True),
    metavar="SECONDS",
    help="For training all networks; what is best by then is taken.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--no-baselines",
    is_flag=True,
    help="Train no diagonal and no constant covariance to compare with.",
)
@click.option("--resume", is_flag=True, help="Go on with a fit that was killed: same command.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier fit in --out.")
@_options.reading_options
@click.option(
    "--decimal",
    type=click.Choice([".", ","]),
    default=".",
    show_default=True,
    help="Decimal point of numbers in text.",
)
@_options.as_json
def fit(**given: Any) -> None:
    """Learn to predict several columns of a table jointly: means and covariance of every row.

    DATA is CSV, TSV (also .gz, .zst, .bz2), Parquet or Feather, and may be larger than memory.
    What its columns are is found out and printed: numbers, categories, dates, times, true and
    false. --as corrects it.
    Columns that are constant, identifiers or free text are dropped. Missing inputs are imputed
    with an indicator; missing targets are fine: what was observed of a row counts.

    Rows are split at random into 60 % for training, 15 % for early stopping, 10 % for
    recalibration and 15 % for testing; where rows depend on each other, say --group or --time, or
    the test flatters. The directory that is written holds the model, everything that `predict`
    needs, metrics.json and report.html; baselines with a diagonal and with a constant covariance
    are trained and recalibrated likewise.

    ^C saves the best so far and exits with 130. After a crash, repeat the command with --resume.

    \b
    Examples:
      keras-mvn fit air.csv --targets max_NO2,max_O3,max_CO --out air
      keras-mvn fit sensors.csv --targets CO,NOx --missing-value -200 --time date --out sensors
      keras-mvn fit huge.parquet --targets a,b --group patient --time-budget 3600 --out huge
    """  # noqa: D301  (click's \b: lines stay as they are)
    from keras_mvn_cli.fitting.run import run

    run(given, click.get_current_context())
