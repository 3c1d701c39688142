"""`keras-mvn report`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_mvn_cli import _options

__all__ = ["report"]


@click.command()
@_options.model_argument
@_options.as_json
def report(model_dir: Path, as_json: bool) -> None:
    """Write report.html and report.md into a fit directory again.

    `keras-mvn fit` does so itself; this is for a newer version of keras-mvn, or when a file was
    lost. Nothing is trained.

    \b
    Example:
      keras-mvn report air
    """  # noqa: D301  (click's \b: lines stay as they are)
    from keras_mvn_cli._console import Output
    from keras_mvn_cli.fitting.reporting import write_report

    output = Output(as_json)
    written = write_report(model_dir)
    for path in written:
        output.say(str(path))
    output.result({"written": [str(path) for path in written]})
