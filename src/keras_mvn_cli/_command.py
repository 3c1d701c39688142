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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; refuse to guess which of two values of an option is meant."""
        order = self.make_parser(ctx).parse_args(list(args))[2]
        for option in self.params:
            given = sum(one is option for one in order)
            if given > 1 and isinstance(option, click.Option) and _takes_one_value(option):
                raise click.UsageError(
                    f"{option.opts[0]} is given {given} times, and takes one value.", ctx
                )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Import the library, then run the body."""
        if "keras_mvn" not in sys.modules:
            try:
                backends.load_library()
            except ImportError as error:
                raise RefusalError(str(error)) from error
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # its messages are noise here
        return super().invoke(ctx)


def _takes_one_value(option: click.Option) -> bool:
    return not (option.multiple or option.count or option.is_flag)
