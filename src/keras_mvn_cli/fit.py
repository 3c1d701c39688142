"""The command `keras-mvn fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command
from keras_mvn_cli._table_options import table_options

__all__ = ["fit"]

CALIBRATIONS = ("coverage", "temperature", "per_target", "matrix", "none")
LOSSES = ("balanced", "nll", "faithful", "beta", "natural_gradient", "energy_score", "crps")


@click.command(cls=Command, short_help="Learn to predict several columns of a table jointly.")
@_options.data_argument
@click.option(
    "--targets",
    multiple=True,
    required=True,
    metavar="A,B,C",
    help="Columns of numbers to predict. Repeatable, for names with commas.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Fit directory to create."
)
@click.option(
    "--features",
    multiple=True,
    metavar="A,B,C",
    help="Columns to predict from. Repeatable. Default: all others.",
)
@click.option("--drop", multiple=True, metavar="A,B,C", help="Columns to ignore. Repeatable.")
@click.option(
    "--as",
    "kinds",
    multiple=True,
    metavar="COLUMN=KIND",
    help="Kind of a column: number, boolean, category, date, or 'time of day'. Repeatable.",
)
@click.option(
    "--group",
    multiple=True,
    callback=_options.one_column,
    metavar="COLUMN",
    help="Rows of a group stay together in the split; not an input.",
)
@click.option(
    "--time",
    multiple=True,
    callback=_options.one_column,
    metavar="COLUMN",
    help="Split in this order: the last rows are the test rows.",
)
@click.option(
    "--skip-untimed", is_flag=True, help="Leave out rows that have no --time; otherwise an error."
)
@click.option(
    "--trend",
    is_flag=True,
    help="With --time: also use inputs that only grow with time, such as a year or a counter, "
    "although every later row lies beyond what was learned of them.",
)
@click.option(
    "--lags",
    metavar="1,2,24",
    callback=_options.steps,
    help="With --time and --lag-columns: earlier values as further inputs, this many rows back, "
    "and their changes.",
)
@click.option(
    "--lag-columns",
    multiple=True,
    metavar="A,B,C",
    help="Columns of numbers with --lags; also targets, if their earlier values are known when "
    "predictions are made. Repeatable.",
)
@click.option(
    "--covariance",
    default="auto",
    show_default=True,
    help="Structure: cholesky, precision_cholesky, correlation, symmetric, diagonal, isotropic, "
    "low_rank:RANK, banded:BANDWIDTH; auto picks the best on held-out rows.",
)
@click.option(
    "--calibration",
    type=click.Choice(CALIBRATIONS),
    default="coverage",
    show_default=True,
    help="How the covariances are recalibrated, on rows held out for it: by one factor, either "
    "the one at which 90 % regions cover 90 % (coverage) or the most likely one (temperature); "
    "by one factor per target; or by a matrix.",
)
@click.option(
    "--cv",
    default="auto",
    show_default=True,
    metavar="auto|none|FOLDS",
    callback=_options.folds,
    help="Cross-fitting: each fold of the rows stops the training of networks that learn from the "
    "others, and recalibrates them, so that no row is held out for it. auto: 5 folds for up to "
    "10 000 rows with JAX, which trains them in one pass, and 2000 otherwise.",
)
@click.option(
    "--members",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Number of networks, but at least one per fold; an ensemble also knows where it has seen "
    "few rows.",
)
@click.option("--loss", type=click.Choice(LOSSES), default="balanced", show_default=True)
@click.option(
    "--tails",
    type=click.Choice(["auto", "normal", "t"]),
    default="auto",
    show_default=True,
    help="Errors as of a normal or, with more rows far out, of a Student's t; auto: whichever "
    "held-out rows say.",
)
@click.option(
    "--components",
    default="auto",
    show_default=True,
    metavar="auto|NUMBER",
    callback=_options.components,
    help="Components of a mixture for every row, for targets with several modes; auto: 1, or 2, 4 "
    "or 8 where held-out rows gain 0.03 nats per target each time.",
)
@click.option(
    "--isolated",
    type=click.Choice(["missing", "keep"]),
    default="missing",
    show_default=True,
    help="What single values far from all others are, such as a glitch of a sensor: missing while "
    "training (targets), or limited to the range of the others (inputs); or kept.",
)
@click.option(
    "--embedding",
    type=click.Choice(["auto", "none", "periodic"]),
    default="auto",
    show_default=True,
    help="Inputs as they are (none) or embedded by waves, which helps where trees do well: "
    "coordinates, steps, counts; auto: whichever held-out rows say.",
)
@click.option(
    "--mean",
    type=click.Choice(["auto", "none", "ridge", "trees", "forest", "gaussian_process"]),
    default="auto",
    show_default=True,
    help="What else predicts the targets, cross-fitted: the networks then correct it, and learn "
    "the covariance of its errors. trees: scikit-learn's boosted trees; auto: none or the best "
    "of the others that takes seconds, as held-out rows say.",
)
@click.option(
    "--stack/--no-stack",
    default=True,
    help="Mix the networks and regressors that were compared, where held-out rows say that their "
    "mixture is better than the best one.",
)
@click.option("--hidden", default="64,64", show_default=True, help="Widths of the hidden layers.")
@click.option("--dropout", type=_options.FiniteRange(0, 1, max_open=True), default=0.0)
@click.option(
    "--epochs", type=click.IntRange(1), default=1000, show_default=True, help="Maximum number."
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="Training stops after this many epochs without a better validation loss.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Rows per step. Default: by table size.")
@click.option(
    "--learning-rate", type=_options.FiniteRange(0, min_open=True), default=5e-3, show_default=True
)
@click.option(
    "--time-budget",
    type=_options.FiniteRange(0, min_open=True),
    metavar="SECONDS",
    help="Time to train all networks; the best weights found by then are used.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--no-baselines",
    is_flag=True,
    help="Do not train the baselines with a diagonal and with a constant covariance.",
)
@click.option("--resume", is_flag=True, help="Continue a killed fit; repeat its command.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier fit in --out.")
@table_options
@_options.as_json
def fit(**given: Any) -> None:
    """Learn to predict several columns of a table jointly: mean and covariance for every row.

    DATA is CSV, TSV (also .gz, .zst, .bz2), Parquet or Feather, and may be larger than memory.
    The kinds of its columns are inferred and printed: numbers, categories, dates, times, booleans.
    Use --as to correct them. Columns that are constant, identifiers or free text are dropped.
    Missing inputs are imputed, with an indicator. Targets may be missing, too: each row counts
    with the targets that were observed.

    Rows are split at random into 85 % for training and 15 % for testing. Up to 10 000 rows for
    training (2000 without JAX) are cross-fitted (--cv); of more, 15 % of all rows stop
    training early, and 10 % recalibrate. If rows depend on each other, pass --group or --time;
    otherwise the test results are too optimistic. The output directory holds the model,
    everything that `predict` needs, metrics.json and report.html. Baselines with a diagonal and
    with a constant covariance are trained and recalibrated in the same way.

    ^C saves the best weights so far and exits with code 130. After a crash, repeat the command
    with --resume.

    \b
    Examples:
      keras-mvn fit air.csv --targets max_NO2,max_O3,max_CO --out air
      keras-mvn fit sensors.csv --targets CO,NOx --missing-value -200 --time date --out sensors
      keras-mvn fit load.csv --targets kW --time hour --lags 1,2,24 --lag-columns kW --out load
      keras-mvn fit huge.parquet --targets a,b --group patient --time-budget 3600 --out huge
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn_cli.fitting.options import FitOptions
    from keras_mvn_cli.fitting.run import run

    run(FitOptions(**given), click.get_current_context())
