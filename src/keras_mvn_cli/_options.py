"""Options that several commands have."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = [
    "FiniteRange",
    "as_json",
    "data_argument",
    "level_option",
    "model_argument",
    "out_option",
    "reading_of",
    "reading_options",
]


class FiniteRange(click.FloatRange):
    """Numbers in a range, which nan never leaves and inf often not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A finite number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


data_argument = click.argument("data", type=click.Path(path_type=Path))
"""A file with a table; what is wrong with it, `keras_mvn.tables` says."""

model_argument = click.argument("model_dir", metavar="MODEL_DIR", type=click.Path(path_type=Path))

as_json = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on stdout; words go to stderr."
)

out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Table to write: .csv (also .csv.gz), .parquet or .feather; left out: CSV on stdout.",
)

level_option = click.option(
    "--level",
    type=FiniteRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Probability of the intervals.",
)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a text table is written, where that is not found out."""
    for option in (
        click.option("--encoding", help="Of a text table, such as latin-1."),
        click.option(
            "--separator",
            help="Of a text table: a character, or 'tab'. By default that of the suffix (.csv , "
            ".tsv tab), or what fits the first lines.",
        ),
    ):
        command = option(command)
    return command


def reading_of(separator: str | None, encoding: str | None) -> Any:
    """`tables.Reading` of these options."""
    from keras_mvn.tables import Reading
    from keras_mvn_cli._console import RefusalError

    character = {"tab": "\t", r"\t": "\t"}.get(separator or "", separator)
    if character is not None and len(character) != 1:
        raise RefusalError(f"--separator {separator!r} must be one character, or 'tab'.")
    return Reading(character, encoding)
