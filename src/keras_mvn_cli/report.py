"""The command `keras-mvn report`."""

from __future__ import annotations

from pathlib import Path

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command

__all__ = ["report"]


@click.command(cls=Command)
@_options.model_argument
@_options.as_json
def report(model_dir: Path, as_json: bool) -> None:
    """Rewrite report.html, report.md and model_card.md in a fit directory.

    `keras-mvn fit` writes them itself; use this command after upgrading keras-mvn, or if a file
    was lost. Nothing is trained.

    \b
    Example:
      keras-mvn report air
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn_cli._console import Output
    from keras_mvn_cli.fitting.reporting import write_report

    output = Output(as_json)
    written = write_report(model_dir)
    for path in written:
        output.say(str(path))
    output.result({"written": [str(path) for path in written]})
