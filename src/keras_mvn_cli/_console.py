"""Console output and exit codes of the commands."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, final

import click

__all__ = ["INTERRUPTED", "NOBODY_READS", "Output", "RefusalError", "silence"]

INTERRUPTED = 130
"""Exit code after ^C, by shell convention: 128 + SIGINT."""

NOBODY_READS = 141
"""Exit code when the reader of stdout, such as `head`, has exited: 128 + SIGPIPE."""


def silence(stream: IO[Any]) -> None:
    """Redirect the stream to the null device, so that even buffered output is dropped."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class RefusalError(click.ClickException):
    """Invalid usage or an unusable table: one line on stderr, exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message on one line."""
        click.echo(f"keras-mvn: {self.format_message()}", file=file or sys.stderr)


@final
class Output:
    """Writer of results to stdout and of messages to where they do not get in the way.

    Args:
        json: bool, whether to print one JSON object on stdout and messages on stderr.
        quiet: bool, whether to print messages on stderr because stdout carries data.

    """

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        from rich.console import Console

        class Words(Console):
            def on_broken_pipe(self) -> None:
                """Re-raise, so that the group ends the command as for any other output."""
                raise  # the `BrokenPipeError` being handled

        self.json = json
        self.console = Words(stderr=json or quiet, highlight=False, soft_wrap=True)
        self._noted: set[str] = set()

    def say(self, text: Any = "") -> None:
        """Print text, or a `rich` table."""
        self.console.print(text, markup=False)

    def note(self, text: str) -> None:
        """Print a note, but only the first time the same text comes up."""
        if text not in self._noted:
            self._noted.add(text)
            self.say(f"note: {text}")

    def warn(self, text: str) -> None:
        """Print a warning on stderr, wherever other messages go."""
        click.echo(f"warning: {text}", err=True)

    @staticmethod
    def interrupting() -> None:
        """Acknowledge ^C, unbuffered, because the signal may arrive in the middle of a write."""
        with contextlib.suppress(OSError):
            os.write(2, b"\nkeras-mvn: stopping after this step; ^C again stops at once\n")

    def result(self, values: dict[str, Any]) -> None:
        """Print the JSON object, if `json` is set."""
        if self.json:
            click.echo(json.dumps(values, ensure_ascii=False, allow_nan=False))

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """Show a progress bar, or a counter without `total`; yields update(done, words)."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}")
        with Progress(
            *columns,
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not (self.console.is_terminal and self.console.file.isatty()),
        ) as bar:
            task = bar.add_task(what, total=total, words="")

            def update(done: int, words: str = "") -> None:
                bar.update(task, completed=done, words=words)

            yield update
