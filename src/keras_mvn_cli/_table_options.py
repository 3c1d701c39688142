"""The options that say how a table is read, shared by all commands that read one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, final

import click

from keras_mvn_cli._console import RefusalError

__all__ = ["TableOptions", "table_options"]


@final
@dataclass(frozen=True)
class TableOptions:
    """The options under which a table is read, under their command-line names; None: not given.

    A fit directory keeps them. Later commands read their tables in the same way, except for the
    options that they are given themselves.
    """

    separator: str | None = None
    encoding: str | None = None
    skip_rows: int | None = None
    skip_footer: int | None = None
    comment: str | None = None
    units_row: int | None = None
    quotes: bool | None = None
    numeric_header: bool | None = None
    decimal: str | None = None
    thousands: str | None = None
    strip: tuple[str, ...] | None = None
    accounting: bool | None = None
    limits_as_missing: bool | None = None
    missing_value: tuple[str, ...] | None = None
    date_format: tuple[str, ...] | None = None
    day_first: bool | None = None

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> Self:
        """Remove these options from those of a command."""
        no_units = given.pop("no_units_row")
        taken: dict[str, Any] = {entry.name: given.pop(entry.name) for entry in fields(cls)}
        for name, value in taken.items():
            if value == () or (name == "units_row" and value == 0):
                taken[name] = None
        if no_units:
            taken["units_row"] = 0
        return cls(**taken)

    @classmethod
    def kept(cls, about: Mapping[str, Any]) -> Self:
        """Return those of a fit, from the contents of its `fit.json`."""
        known = {entry.name for entry in fields(cls)}
        found = about.get("options", {}).get("reading", {})
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items()
            if name in known
        }
        return cls(**options)

    def left_out(self, given: Self) -> str:
        """Return the options by which lines are left out, if they were not given now but kept."""
        names = ("skip_rows", "skip_footer", "comment", "units_row")
        kept = [name for name in names if getattr(self, name) and getattr(given, name) is None]
        return ", ".join(f"--{name.replace('_', '-')}={getattr(self, name)}" for name in kept)

    def over(self, others: Self) -> Self:
        """Return these options, and the others where these were not given."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(others, **given)

    def check(self) -> None:
        """Check what can be checked before a table is opened.

        Raises:
            RefusalError: an option has an invalid value, or two contradict each other.

        """
        from keras_mvn.tables import Cells

        self.reading()
        self.cells(Cells())

    def reading(self) -> Any:
        """Return the `tables.Reading` for these options."""
        from keras_mvn.tables import Reading

        character = {"tab": "\t", r"\t": "\t"}.get(self.separator or "", self.separator)
        if character is not None and len(character) != 1:
            raise RefusalError(f"--separator {self.separator!r} must be one character, or 'tab'.")
        return Reading(
            character,
            self.encoding,
            self.skip_rows or 0,
            self.skip_footer or 0,
            self.comment,
            self.units_row or 0,
            self.quotes is not False,
            self.numeric_header is True,
        )

    def cells(self, base: Any) -> Any:
        """Return the `tables.Cells` for these options; where none was given, those of `base`."""
        from keras_mvn.tables.numerals import mark_of

        given = {
            "decimal": self.decimal,
            "missing": self.missing_value,
            "thousands": None if self.thousands is None else mark_of(self.thousands),
            "strip": self.strip,
            "accounting": self.accounting,
            "limits_as_missing": self.limits_as_missing,
        }
        dates = {"formats": self.date_format, "day_first": self.day_first}
        found = {name: value for name, value in dates.items() if value is not None}
        if self.thousands is None and base.thousands == self.decimal:
            given["thousands"] = ""  # of an earlier table, with other marks
        cells = replace(
            base,
            **{name: value for name, value in given.items() if value is not None},
            dates=replace(base.dates, **found),
        )
        if cells.thousands == cells.decimal:
            raise RefusalError(
                f"--thousands {cells.thousands}: that is the decimal mark; give --decimal "
                f"{'.' if cells.decimal == ',' else ','} as well."
            )
        return cells

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without the options that were not given."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value is not None
        }


_OPTIONS = (
    click.option(
        "--separator",
        help="Separator of a text table: one character, or 'tab'. Default: that of the suffix "
        "(comma for .csv, tab for .tsv), or the one that fits the first lines.",
    ),
    click.option("--encoding", help="Encoding of a text table, such as latin-1 or utf-16-le."),
    click.option(
        "--skip-rows", type=click.IntRange(0), help="Lines before the header that are left out."
    ),
    click.option(
        "--skip-footer", type=click.IntRange(0), help="Lines after the last row that are left out."
    ),
    click.option("--comment", metavar="TEXT", help="Leave out lines that begin with TEXT, as '#'."),
    click.option(
        "--units-row",
        count=True,
        help="The line below the header is no row (it holds units). Twice: two lines.",
    ),
    click.option("--no-units-row", is_flag=True, hidden=True),
    click.option(
        "--quotes/--no-quotes",
        default=None,
        help="Whether quotes may enclose fields. Default: yes.",
    ),
    click.option(
        "--numeric-header/--no-numeric-header",
        default=None,
        help="The names of all columns are numbers, such as years.",
    ),
    click.option(
        "--decimal", type=click.Choice([".", ","]), help="Decimal mark of numbers in text."
    ),
    click.option(
        "--thousands",
        metavar="MARK",
        help="Separator of thousands: , or . or ' or 'space' (blank, no-break, thin).",
    ),
    click.option(
        "--strip",
        multiple=True,
        metavar="TEXT",
        help="Text beside numbers to ignore, such as % or $ or °C. Repeatable.",
    ),
    click.option(
        "--accounting/--no-accounting",
        default=None,
        help="(1.23) and 1.23- are the negative number -1.23.",
    ),
    click.option(
        "--limits-as-missing/--no-limits-as-missing",
        default=None,
        help="Limits of detection, such as <0.05, count as missing.",
    ),
    click.option(
        "--missing-value",
        multiple=True,
        metavar="TEXT",
        help="Content of cells that are missing, such as -200. Repeatable.",
    ),
    click.option(
        "--date-format",
        multiple=True,
        metavar="FORMAT",
        help="Format of dates or times, such as '%d.%m.%Y %H:%M'. Repeatable.",
    ),
    click.option(
        "--day-first/--month-first",
        default=None,
        help="Whether 3/4 is the third of April, or the fourth of March.",
    ),
)


def table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command receives them together, as `reading`."""

    @functools.wraps(command)
    def taking(**given: Any) -> Any:
        return command(reading=TableOptions.taken_from(given), **given)

    for option in reversed(_OPTIONS):
        taking = option(taking)
    return taking
