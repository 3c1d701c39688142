"""The sequence of `keras-mvn fit`: read, prepare, train, assess, write."""

from __future__ import annotations

import time
from pathlib import Path

import click

from keras_mvn._core.interrupts import deferred_interrupts
from keras_mvn._training.recipe import likelihood_of
from keras_mvn_cli import _assessing
from keras_mvn_cli._console import INTERRUPTED, Output, RefusalError
from keras_mvn_cli._fit_directory import FitFolder
from keras_mvn_cli._structures import structure_of
from keras_mvn_cli.fitting.options import FitOptions
from keras_mvn_cli.fitting.reporting import write_report
from keras_mvn_cli.fitting.results import about_fit, assessed, write_results
from keras_mvn_cli.fitting.table import prepared_table
from keras_mvn_cli.fitting.training import trained_networks, widths_of

__all__ = ["run"]


def run(options: FitOptions, context: click.Context) -> None:
    """Create a fit directory.

    Raises:
        RefusalError: an option or a folder cannot be used.
        TableError: the table cannot be used.

    """
    began = time.monotonic()
    output = Output(options.as_json)
    folder = FitFolder(Path(options.out))
    folder.check(options.resume, options.overwrite)
    _check(options)
    prepared = prepared_table(options, folder, output)
    try:
        with deferred_interrupts(output.interrupting) as interruption:
            networks, interrupted = trained_networks(options, prepared, folder, output)
            metrics = assessed(prepared, networks, folder, output)
            seconds = prepared.seconds + time.monotonic() - began
            about = about_fit(options, prepared, networks, interrupted, seconds)
            write_results(folder.partial, prepared, networks["model"], options.calibration, about)
            folder.finish()
            output.say(_assessing.comparison(metrics))
            for text in about["outside"]:
                output.warn(f"test rows: {text}")
            with output.progress("writing the report"):
                write_report(folder.target)
    except KeyboardInterrupt:
        if not folder.partial.exists():
            raise
        raise KeyboardInterrupt(f"{folder.partial} is kept; --resume continues it") from None
    output.say(f"{folder.target}: model, metrics.json, report.html; {about['seconds']:.0f} s")
    output.result({"out": str(folder.target), "fit": about, "metrics": metrics})
    if interrupted:
        output.say("interrupted: the best weights up to then were kept")
    if interruption.requested or interrupted:
        context.exit(INTERRUPTED)


def _check(options: FitOptions) -> None:
    """Check the options that can be checked before the table is read."""
    structure_of(options.covariance)
    options.reading.check()
    widths_of(options.hidden)
    if options.group and options.time:
        raise RefusalError("--group and --time cannot be combined; choose one.")
    for option, value in (("--lags", options.lags), ("--trend", options.trend)):
        if value and not options.time:
            raise RefusalError(f"{option} needs --time, the column that orders the rows.")
    for entry in options.kinds:
        if "=" not in entry:
            raise RefusalError(f"--as {entry}: expected COLUMN=KIND, such as station=category.")
    several = options.components not in ("auto", 1)
    if several and not likelihood_of(options.loss):
        raise RefusalError(
            f"--components {options.components} trains by the likelihood of a mixture, and --loss "
            f"{options.loss} is another score. Use --loss balanced or nll, or --components 1."
        )
    if several and options.calibration in ("per_target", "matrix"):
        raise RefusalError(
            f"--calibration {options.calibration} corrects one distribution for each row, and "
            f"--components {options.components} makes mixtures. Use --calibration coverage or "
            "temperature, or --components 1."
        )
    if options.tails == "t" and not likelihood_of(options.loss):
        raise RefusalError(
            f"--tails t trains by the likelihood of a Student's t, and --loss {options.loss} is "
            "another score. Leave out one of the two."
        )
