"""The command `keras-mvn demo`."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table
from keras_mvn_cli._command import Command

__all__ = ["demo"]


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("keras-mvn-demo"),
    show_default=True,
    help="Folder for model.keras, predictions.csv and figure.png.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of random splits to train on.",
)
def demo(out: Path, seeds: int) -> None:
    """Predict six blood-serum values of diabetes patients, jointly.

    Trains on real data that ship with scikit-learn (442 patients; age, sex, body mass index and
    blood pressure → s1…s6), compares a constant covariance, a diagonal one, a full one and the
    full one after recalibration, and writes a model, its predictions and a figure. Takes about a
    minute.
    """
    import keras
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from keras_mvn_cli import _demonstration as demonstration

    for name in ("sklearn", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise click.ClickException(f"the demo needs {name}: pip install 'keras-mvn[cli]'")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"--out {out}: {error.strerror}") from error

    console = Console()
    began = time.perf_counter()
    console.print(
        f"442 patients, 4 inputs → 6 targets, {seeds} random splits "
        f"(50 % train, 15 % validation, 15 % calibration, 20 % test); backend "
        f"{keras.backend.backend()}"
    )
    outcomes = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("networks"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("", total=3 * seeds)
        for seed in range(seeds):
            trained = 0

            def report(what: str, seed: int = seed) -> None:
                nonlocal trained
                progress.update(
                    task,
                    description=f"split {seed + 1}: {what:<13}",
                    completed=3 * seed + trained,
                )
                trained += 1

            outcomes.append(demonstration.run(seed, report))
            full = outcomes[-1].scores[demonstration.METHODS[2]]
            progress.console.print(
                f"split {seed + 1}: full Cholesky NLL {full.nll_per_target:.2f}, "
                f"coverage {100 * full.coverage:.0f} %, "
                f"temperature {outcomes[-1].temperature:.2f}"
            )
        progress.update(task, description="done", completed=3 * seeds)

    console.print(_table(demonstration.summarize(outcomes), seeds))
    console.print(
        "NLL: negative log density of the test rows, nats per target; lower is better.\n"
        "RMSE: error of the mean, in standard deviations of each target.\n"
        "Coverage: share of test rows inside the joint 90 % ellipsoid; ideally 90 %.\n"
        "Log-volume: that of this ellipsoid; smaller is sharper, if coverage is right.\n"
        "Constant Σ: covariance of the residuals of an MSE net. + temperature: the full\n"
        "Cholesky net; all standard deviations times one factor, from calibration rows."
    )
    written = demonstration.write(outcomes[0], out)
    console.print(f"\nfiles of split 1, in {out.resolve()}:", soft_wrap=True)
    for path in written:
        console.print(f"  {path.name}")
    console.print(f"{time.perf_counter() - began:.0f} s")


def _table(summary: dict[str, list[tuple[float, float, float]]], seeds: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # Narrow enough for an 80-column terminal.
    title = f"Test rows, median (range) over {seeds} splits"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("covariance", no_wrap=True)
    for name in ("NLL per target", "RMSE", "coverage (%)", "log-volume"):
        table.add_column(name, justify="right", no_wrap=True)
    columns = ("{:.2f}", 1), ("{:.2f}", 1), ("{:.0f}", 100), ("{:.1f}", 1)
    for method, scores in summary.items():
        cells = [
            "{} ({}–{})".format(*(pattern.format(factor * value) for value in score))
            for (pattern, factor), score in zip(columns, scores, strict=True)
        ]
        table.add_row(method, *cells)
    return table
