"""What a column is, according to its profile: a number, a category, a date, or nothing of use."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from keras_mvn.tables.cells import BOOLEANS
from keras_mvn.tables.dates import has_shape, shape_of
from keras_mvn.tables.errors import LONGEST, CellError, TableError, cut, listed
from keras_mvn.tables.profiling import FEW_STRAYS, MANY, TEMPORAL, Candidate, Profile

__all__ = ["GROWS", "KINDS", "Decision", "decide", "mend_of"]

KINDS = ("number", "boolean", "category", "date", "time of day")
"""Kinds of inputs."""

HALF = 0.5
"""Share of readable cells from which it is worth mentioning that they are numbers or dates."""

MOSTLY = 0.9
"""Share of readable cells from which a column holds numbers or dates, the rest being errors."""

CATEGORIES = 50
"""Number of distinct texts up to which a column is categorical, however few rows there are."""

CATEGORY_SHARE = 0.05
"""Share of the rows up to which a larger number of distinct texts is still categorical."""

MOST_CATEGORIES = 1000

IDENTIFIERS = ("id", "index", "row", "nr", "no", "number", "key", "rownames", "...1", "#")
"""Names of columns that may hold the row number."""

OF_INDICES = re.compile(r"index|level_\d+|Unnamed: \d+(\.\d+)*")
"""Names that pandas gives to an index, whose numbers may be in any order."""

CENTURY = 60 * 365.25 * 86400.0
"""Seconds above which dates with years of two digits may be in the wrong century."""


GROWS = "only grows with time, so later rows lie beyond it; --trend keeps it"


@final
@dataclass(frozen=True)
class Decision:
    """The decision on how a column is used, and the reason."""

    column: str
    kind: str
    """One of `KINDS`, or "dropped"."""
    why: str
    form: str | None = None
    """Format of dates and times in text."""
    advice: str = ""
    """What may be wrong with this decision, and the option that mends it."""
    trend: bool = True
    """Whether that part of dates is used which only grows with time."""

    def without_trend(self) -> Decision:
        """Return the decision for a column that only grows with time."""
        if self.kind == "date":
            return replace(self, trend=False)
        return Decision(self.column, "dropped", GROWS)


def decide(profile: Profile, asked: str | None = None) -> Decision:
    """Decide what a column is: the requested kind, or what all of its cells suggest.

    Raises:
        CellError: the cells are not of the requested kind; a few cells in a column of numbers or
            dates are not; a number is infinite.
        TableError: the column cannot be of the requested kind.

    """
    if asked is not None:
        return _as_asked(profile, asked)
    name = profile.name
    if profile.present == 0 and not profile.seen:
        return Decision(name, "dropped", "no values")
    if profile.number is None and profile.forms is None:
        return Decision(name, "dropped", f"unsupported type {profile.type_name}")
    if profile.coded:
        return Decision(name, "category", "declared so by the file")
    return (
        _if_number(profile)
        or _if_boolean(profile)
        or _if_date(profile)
        or _if_category(profile)
        or Decision(name, "dropped", _why_text(profile), advice=_advice(profile))
    )


def _as_asked(profile: Profile, kind: str) -> Decision:
    name, said = profile.name, "as requested"
    if kind not in KINDS:
        raise TableError(f"--as {name}={kind}: expected one of {listed(KINDS)}.")
    found = {
        "number": _if_number,
        "boolean": _if_boolean,
        "date": _if_date,
        "time of day": _if_date,
    }.get(kind)
    if found is None:
        return Decision(name, "category", said)
    decision = found(profile)
    if decision is None or decision.kind not in (kind, "dropped"):
        raise _not_as_asked(profile, kind)
    return decision


def _not_as_asked(profile: Profile, kind: str) -> TableError:
    """Name a cell that is not of the requested kind, and what stands in its way."""
    number, start = profile.number, f"--as {profile.name}={kind}: "
    if kind == "number" and number is not None and number.example is not None:
        text, row = number.example
        way_out = profile.obstacle or (
            f"if that means missing, use --missing-value {cut(text)}" if number.readable else ""
        )
        return CellError(
            f"{start}{cut(text)}", row, f" is not a number{f'; {way_out}' if way_out else '.'}"
        )
    example = _first_strange(profile, kind)
    if example is not None:
        return CellError(f"{start}{cut(example[0])}", example[1], f" is no {kind}.")
    if number is not None and number.readable:
        hint = " Give their --date-format, such as %Y%m%d, unix or excel." if kind == "date" else ""
        return TableError(
            f"{start}its cells are numbers from {number.low:g} to {number.high:g}.{hint}"
        )
    some = next(iter(profile.seen), None)
    cells = profile.type_name if some is None else f"texts such as {cut(some)}"
    hint = " Give their --date-format." if some is not None and kind in TEMPORAL else ""
    return TableError(f"{start}its cells are {cells}.{hint}")


def _first_strange(profile: Profile, kind: str) -> tuple[str, int] | None:
    """The first cell that the best format of dates or times does not read, if it reads some."""
    best = profile.best_form()
    if best is None or best[0] != kind or not best[2].readable:
        return None
    return best[2].example


def _if_number(profile: Profile) -> Decision | None:
    number, name = profile.number, profile.name
    if number is None or not number.readable or _truth_typed(profile):
        return None
    mostly = number.readable >= MOSTLY * profile.present
    if not mostly and not profile.holds_numbers_and_codes:
        return None
    if number.unreadable:
        raise _stray(profile, number, "numbers")
    if number.infinite is not None:
        raise CellError(
            f"column {name!r} holds an infinite number",
            number.infinite,
            "; if that means missing, use --missing-value inf --missing-value -inf",
        )
    if number.low == number.high and profile.present == profile.rows:
        return Decision(name, "dropped", f"always {number.low:g}")
    counting = profile.counting and _named_as_identifier(name)
    shuffled = OF_INDICES.fullmatch(name) and number.is_permutation(profile.rows)
    if (counting or shuffled) and profile.rows > 1:
        return Decision(name, "dropped", "the row number")
    why = f"from {number.low:g} to {number.high:g}"
    return Decision(name, "number", why, advice=profile.doubt)


def _truth_typed(profile: Profile) -> bool:
    return profile.type_name == "bool"


def _if_boolean(profile: Profile) -> Decision | None:
    if _truth_typed(profile) and profile.number is not None:
        if profile.number.low == profile.number.high and profile.present == profile.rows:
            return Decision(profile.name, "dropped", f"always {bool(profile.number.low)}")
        return Decision(profile.name, "boolean", "true and false")
    values = {text.casefold() for text in profile.seen}
    if profile.many or not values & set(BOOLEANS) or not values <= {*BOOLEANS, "0", "1"}:
        return _if_zero_or_one(profile) if profile.asked == "boolean" else None
    if len(values) == 1 and profile.present == profile.rows:
        return Decision(profile.name, "dropped", f"always {next(iter(profile.seen))!r}")
    return Decision(profile.name, "boolean", " and ".join(sorted(profile.seen)))


def _if_zero_or_one(profile: Profile) -> Decision | None:
    """Numbers count as true and false only if somebody says so."""
    number = profile.number
    if number is None or number.unreadable or {number.low, number.high} != {0.0, 1.0}:
        return None
    return Decision(profile.name, "boolean", "1 and 0") if number.whole else None


def _if_date(profile: Profile) -> Decision | None:
    best = profile.best_form()
    if best is None:
        return None
    kind, form, candidate = best
    if not candidate.readable or candidate.readable < MOSTLY * profile.present:
        return None
    if candidate.unreadable:
        raise _stray(profile, candidate, "dates" if kind == "date" else "times of day")
    if candidate.low == candidate.high and profile.present == profile.rows:
        return Decision(profile.name, "dropped", f"always {next(iter(profile.seen), 'the same')!r}")
    why = f"as {form}" if form else f"of type {profile.type_name}"
    if kind == "date":
        why = f"{_day(candidate.low)} to {_day(candidate.high)}, {why}"
        why += _other_readings(profile, form)
    return Decision(profile.name, kind, why, form or None, advice=_century(candidate, form))


def _century(candidate: Candidate, form: str) -> str:
    """Return a warning if years of two digits may be in the wrong century."""
    if "%y" not in form or candidate.high - candidate.low <= CENTURY:
        return ""
    return (
        f"years of two digits are read as {_day(candidate.low)[:4]} to {_day(candidate.high)[:4]}; "
        "write them with four digits if that is wrong"
    )


def _day(seconds: float) -> str:
    return str(np.datetime64(round(seconds), "s"))[:10]


def _other_readings(profile: Profile, form: str) -> str:
    """Return a warning if day and month could be swapped, unless it was said which is first."""
    if form in profile.cells.dates.formats:
        return ""
    others = [form for (_, form), c in (profile.forms or {}).items() if c.unreadable == 0]
    if "%y" in form and any("%y" in other for other in others if other != form):
        ways = " or ".join(shlex.quote(one) for one in others if "%y" in one)
        return f" (the year could be elsewhere: say --date-format {ways})"
    if profile.cells.dates.day_first is not None:
        return ""
    exchanged = {"%d/%m": "%m/%d", "%d-%m": "%m-%d"}
    for mine, other in exchanged.items():
        if mine in form and form.replace(mine, other) in others:
            return (
                " (every day is below 13, so the month could be first: say --day-first or "
                "--month-first)"
            )
    return ""


def _if_category(profile: Profile) -> Decision | None:
    if profile.many or not profile.seen:
        return None
    different, rows = len({*profile.seen, *profile.words}), profile.rows
    if different == 1 and profile.worded == rows:
        return Decision(profile.name, "dropped", f"always {cut(next(iter(profile.seen)))}")
    few = different <= CATEGORIES or (
        different <= CATEGORY_SHARE * rows and different <= MOST_CATEGORIES
    )
    if not few or (not profile.repeated and different > 2):
        return None
    why = f"{different} different texts"
    return Decision(profile.name, "category", why, advice=_advice(profile))


def _why_text(profile: Profile) -> str:
    if not profile.repeated:
        return "an identifier: all of its texts differ"
    count = f"more than {MANY}" if profile.many else str(len(profile.seen))
    return f"text: {count} different values in {profile.rows} rows"


def _advice(profile: Profile) -> str:
    """Return what may keep the cells from being numbers or dates, with the way out, or ""."""
    if found := profile.obstacle:
        return found
    name, number = profile.name, profile.number
    codes = list(number.strays) if number is not None and number.readable else []
    if codes and len(codes) <= FEW_STRAYS:
        return (
            f"all but {listed(codes)} are numbers; for those that mean missing, use "
            f"--missing-value, and --as {name}=category if they are categories"
        )
    if number is not None and number.readable >= HALF * profile.present and number.example:
        text = cut(number.example[0])
        return (
            f"{number.readable} of its cells are numbers, others are not, such as {text}; if that "
            f"means missing, use --missing-value {text}"
        )
    if found := profile.other_order:
        return found
    best = profile.best_form()
    if best is not None and best[2].readable >= HALF * profile.present and best[2].example:
        return (
            f"{best[2].readable} of its cells are of the form {best[1]}, others are not, such as "
            f"{cut(best[2].example[0])}; give a --date-format for each form"
        )
    return ""


def _stray(profile: Profile, candidate: Candidate, what: str) -> CellError:
    text, row = candidate.example or ("?", 0)
    count = f"{candidate.unreadable} such cell{'s' if candidate.unreadable > 1 else ''}"
    if len(candidate.strays) > 1:
        count += f", {len(candidate.strays)} different ones" if not candidate.diverse else ""
    return CellError(
        f"column {profile.name!r} holds {what}, except for {cut(text)}",
        row,
        f" ({count} in {profile.rows} rows). {_way_out(profile, candidate, text, row, what)}",
    )


def _way_out(profile: Profile, candidate: Candidate, text: str, row: int, what: str) -> str:
    """Return the options that mend a stray cell."""
    name, missing = profile.name, f"--missing-value {shlex.quote(text[:LONGEST])}"
    others = f"otherwise, --as {shlex.quote(f'{name}=category')} or --drop {shlex.quote(name)}"
    if what == "numbers":
        return f"{mend_of(profile, candidate, text, row)}; {others}"
    best = profile.best_form()
    if best is not None and has_shape(best[1], {shape_of(text)}):
        return f"There is no such time. If it means missing, use {missing}; {others}"
    if any(character.isdigit() for character in text):
        return f"Give a --date-format for each way in which they are written; {others}"
    return f"If that means missing, use {missing}; {others}"


def mend_of(profile: Profile, candidate: Candidate, text: str, row: int) -> str:
    """Return what may be meant by a cell that is no number in a column of numbers."""
    found = profile.obstacle
    if found:
        return f"{found[0].upper()}{found[1:]}"
    hints = []
    if text == profile.name:
        hints.append("if the header is repeated there, remove that line")
    if candidate.unreadable <= 2 and row == 0:
        hints.append("if the first row holds units, use --units-row, once for each such row")
    if candidate.unreadable == 1 and row == profile.rows - 1:
        hints.append("if the last row is no data, use --skip-footer 1")
    hints.append(f"if that means missing, use --missing-value {shlex.quote(text[:LONGEST])}")
    hints[0] = f"I{hints[0][1:]}"
    return "; ".join(hints)


def _named_as_identifier(name: str) -> bool:
    plain = name.casefold().strip("_ ")
    return plain in IDENTIFIERS or plain.startswith("column ")
