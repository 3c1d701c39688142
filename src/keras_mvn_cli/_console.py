"""What the commands say, and how they end."""

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
"""Exit code after ^C, as shells have it: 128 + SIGINT."""

NOBODY_READS = 141
"""Exit code when the reader of stdout has ended, such as `head`: 128 + SIGPIPE."""


def silence(stream: IO[Any]) -> None:
    """Let nothing more be written to it, not what is buffered either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class RefusalError(click.ClickException):
    """Bad usage or a bad table: one line on stderr, exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def show(self, file: IO[Any] | None = None) -> None:
        """One line."""
        click.echo(f"keras-mvn: {self.format_message()}", file=file or sys.stderr)


@final
class Output:
    """The result on stdout, everything else where it is out of the way.

    Args:
        json: one JSON object on stdout; words go to stderr.
        quiet: words go to stderr, since stdout is data.

    """

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        from rich.console import Console

        class Words(Console):
            def on_broken_pipe(self) -> None:
                """As for everything else on stdout: `cli` ends the command."""
                raise  # the `BrokenPipeError` that is being handled

        self.json = json
        self.console = Words(stderr=json or quiet, highlight=False, soft_wrap=True)
        self._noted: set[str] = set()

    def say(self, text: Any = "") -> None:
        """Words, or a table of `rich`."""
        self.console.print(text, markup=False)

    def note(self, text: str) -> None:
        """Something to know, once, however often it comes up."""
        if text not in self._noted:
            self._noted.add(text)
            self.say(f"note: {text}")

    def warn(self, text: str) -> None:
        """A line on stderr, wherever the words go."""
        click.echo(f"warning: {text}", err=True)

    @staticmethod
    def interrupting() -> None:
        """That ^C was heard; past all buffers, which a signal may find in the midst of writing."""
        with contextlib.suppress(OSError):
            os.write(2, b"\nkeras-mvn: stopping after this step; ^C again does not wait\n")

    def result(self, values: dict[str, Any]) -> None:
        """The JSON object, where one was asked for."""
        if self.json:
            click.echo(json.dumps(values, ensure_ascii=False, allow_nan=False))

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """A bar, or a counter where the end is not known; call it with (done, words)."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}")
        with Progress(
            *columns,
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        ) as bar:
            task = bar.add_task(what, total=total, words="")

            def update(done: int, words: str = "") -> None:
                bar.update(task, completed=done, words=words)

            yield update
