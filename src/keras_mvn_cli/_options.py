"""Options shared by several commands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from keras_mvn_cli._console import RefusalError
from keras_mvn_cli._fit_directory import fitted

__all__ = [
    "FiniteRange",
    "as_json",
    "components",
    "data_argument",
    "folds",
    "keep_option",
    "level_option",
    "model_argument",
    "one_column",
    "out_option",
    "steps",
    "strict_option",
    "tables_argument",
]


class FiniteRange(click.FloatRange):
    """A float range that rejects nan and inf, which `click.FloatRange` may accept."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as a finite float."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def _existing_file(ctx: click.Context, param: click.Parameter, path: Path) -> Path:
    """Return the path if the file can be opened; `keras_mvn.tables` checks that it is a table.

    Raises:
        RefusalError: the file cannot be opened.

    """
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise RefusalError(f"{path}: {error.strerror or error}") from error


def _existing_tables(ctx: click.Context, param: click.Parameter, path: Path) -> Path:
    """Return the path if it is a folder, or a file that can be opened."""
    return path if path.is_dir() else _existing_file(ctx, param, path)


def _fit_directory(ctx: click.Context, param: click.Parameter, folder: Path) -> Path:
    """Return the path if it is a directory written by `keras-mvn fit`."""
    fitted(folder)
    return folder


def one_column(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> str | None:
    """Return the only name; of two, the first would silently become an input.

    Raises:
        UsageError: several were given.

    """
    if len(names) > 1:
        raise click.UsageError(f"{param.opts[0]} is given {len(names)} times; it takes one column.")
    return names[0] if names else None


def folds(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    """Return "auto" or the number of folds, 0 for "none".

    Raises:
        RefusalError: it is something else.

    """
    if value in ("auto", "none"):
        return "auto" if value == "auto" else 0
    if not value.isdecimal() or int(value) < FEWEST_FOLDS:
        raise RefusalError(
            f"--cv {value}: expected auto, none, or a number of folds of at least {FEWEST_FOLDS}."
        )
    return int(value)


FEWEST_FOLDS = 3


def components(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    """Return "auto" or the number of components.

    Raises:
        RefusalError: it is something else.

    """
    if value == "auto":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise RefusalError(f"--components {value}: expected auto, or a number of at least 1.")
    return int(value)


def steps(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Return numbers of rows, separated by commas.

    Raises:
        RefusalError: one is not a whole number of at least 1.

    """
    texts = [text.strip() for text in value.split(",")] if value else []
    wrong = [text for text in texts if not text.isdecimal() or int(text) < 1]
    if wrong:
        raise RefusalError(
            f"{param.opts[0]} {value}: expected numbers of rows, such as 1,2,24; found "
            f"{wrong[0]!r}."
        )
    return tuple(sorted({int(text) for text in texts}))


data_argument = click.argument("data", type=click.Path(path_type=Path), callback=_existing_file)

tables_argument = click.argument("data", type=click.Path(path_type=Path), callback=_existing_tables)

model_argument = click.argument(
    "model_dir", metavar="MODEL_DIR", type=click.Path(path_type=Path), callback=_fit_directory
)

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, messages on stderr."
)

out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Table to write: .csv (also .csv.gz), .parquet or .feather. Default: CSV on stdout.",
)

level_option = click.option(
    "--level",
    type=FiniteRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Coverage probability of the intervals.",
)

keep_option = click.option(
    "--keep",
    multiple=True,
    metavar="A,B,C",
    help="Columns of DATA to copy to the front of the output, such as an identifier. Repeatable.",
)

strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Refuse cells that are missing where training rows had no gaps, and unknown categories; "
    "otherwise, they are imputed or ignored, with a warning.",
)
