"""The base class of the commands: it parses the command line, then imports the library."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from keras_mvn_cli import backends
from keras_mvn_cli._console import RefusalError

__all__ = ["Command"]


class Command(click.Command):
    """A command whose body uses the library.

    `--help`, unknown options and missing files are handled before the library is imported, because
    importing Keras and a backend takes seconds.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Import the library, then run the body."""
        if "keras_mvn" not in sys.modules:
            try:
                backends.load_library()
            except ImportError as error:
                raise RefusalError(str(error)) from error
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # its messages are noise here
        return super().invoke(ctx)
