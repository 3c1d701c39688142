"""What keeps a column of text from being read as numbers, and the option that mends it."""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from keras_mvn.tables.errors import cut, listed
from keras_mvn.tables.numerals import LIMIT, THOUSANDS, Numerals

__all__ = ["either", "obstacle"]

NEARLY_ALL = 0.9
"""Share of the texts that another way to write numbers must read to be worth mentioning."""

MOST_AFFIXES = 6
"""Number of different texts behind numbers up to which they are units or signs."""

MOST = 1000
"""Number of texts that are looked at."""

_BESIDE = re.compile(r"[+-]?\s*(?P<before>[^\d\s+\-.,()]*)\s*[+-]?[\d.,'\s]*\d\s*(?P<after>\D*)")


def obstacle(texts: Sequence[str], numerals: Numerals) -> str:
    """Return what keeps the texts from being numbers, with the way out; "" if they are not numbers.

    Args:
        texts: distinct contents of cells, both those that are numbers already and others.
        numerals: how numbers are read so far.

    """
    texts = [text.strip() for text in texts[:MOST]]
    bad = [text for text in texts if numerals.number(text) is None]
    if not bad:
        return ""
    signs = sorted({_beside(text)[1] for text in bad} - {"", *numerals.strip})
    if 2 <= len(signs) <= MOST_AFFIXES and _all_are_beside(bad, signs):
        return (
            f"{listed(signs)} stand beside the numbers, which may differ in sign or unit by that: "
            "convert them, so that all are in one unit"
        )
    limits = [text for text in bad if LIMIT.match(text)]
    if limits and len(limits) >= 0.5 * len(bad):
        return (
            f"{cut(limits[0])} is a limit, not a number: replace such cells by what you know of "
            "them, or count them as missing with --limits-as-missing"
        )
    found = [other for other in _others(bad, numerals) if _reads(other, texts, bad)]
    if not found:
        return ""
    fewest = min(_changes(numerals, other) for other in found)
    best = [other for other in found if _changes(numerals, other) == fewest]
    if len(best) == 1:
        return _advice(bad, numerals, best[0])
    text = next(text for text in bad if best[0].number(text) is not None)
    readings = [f"{other.number(text):.10g} with {_options(numerals, other)}" for other in best[:2]]
    return f"{cut(text)} is {' or '.join(readings)}; say which"


def either(mark: str) -> str:
    """Return the pattern of numbers in which the mark could separate thousands as well: 1,234."""
    return rf"^[+-]?[1-9]\d{{0,2}}{re.escape(mark)}\d{{3}}$"


def _others(bad: Sequence[str], numerals: Numerals) -> Iterator[Numerals]:
    """Yield other ways to write numbers."""
    for strip, accounting, decimal, thousands in itertools.product(
        _strips(bad, numerals), (False, True), (".", ","), ("", *THOUSANDS)
    ):
        if decimal != thousands:
            yield Numerals(decimal, thousands, strip, accounting or numerals.accounting)


def _strips(bad: Sequence[str], numerals: Numerals) -> list[tuple[str, ...]]:
    """What may have to be ignored: nothing more, or what stands beside the numbers."""
    beside: Counter[str] = Counter()
    for text in bad:
        before, after = _beside(text)
        # Letters before a whole number are names (row 17, ID-3), not currencies.
        if before and not (before.isalpha() and re.search(r"\d[.,]\d", text) is None):
            beside[before] += 1
        if after:
            beside[after] += 1
    usual = [affix for affix, count in beside.items() if count >= 0.02 * len(bad)]
    if not usual or len(usual) > 3:
        return [numerals.strip]
    return [numerals.strip, (*numerals.strip, *sorted(usual))]


def _beside(text: str) -> tuple[str, str]:
    """The texts before and after a number; "" for none, and for signs and parentheses."""
    found = _BESIDE.fullmatch(text.strip("()"))
    if found is None:
        return "", ""
    return found["before"], found["after"].strip(" ()-+\u2212\u2013")


def _all_are_beside(bad: Sequence[str], affixes: Sequence[str]) -> bool:
    return sum(_beside(text)[1] in affixes for text in bad) >= NEARLY_ALL * len(bad)


def _reads(other: Numerals, texts: Sequence[str], bad: Sequence[str]) -> bool:
    """Whether nearly all texts are numbers when written in this way, and most of the bad ones."""
    read = sum(other.number(text) is not None for text in texts)
    mended = sum(other.number(text) is not None for text in bad)
    return read >= NEARLY_ALL * len(texts) and mended >= 0.5 * len(bad)


def _changes(now: Numerals, other: Numerals) -> int:
    return (
        (now.decimal != other.decimal)
        + (now.thousands != other.thousands)
        + (now.strip != other.strip)
        + (now.accounting != other.accounting)
    )


def _options(now: Numerals, other: Numerals) -> str:
    """Return the options that lead from one way to the other."""
    options = []
    if other.decimal != now.decimal:
        options.append(f"--decimal {other.decimal}")
    if other.thousands != now.thousands:
        options.append(f"--thousands {_quoted(other.thousands)}")
    options += [f"--strip {_quoted(affix)}" for affix in other.strip if affix not in now.strip]
    if other.accounting != now.accounting:
        options.append("--accounting")
    return " ".join(options)


def _quoted(text: str) -> str:
    return f'"{text}"' if text in (" ", "'") else shlex.quote(text)


def _advice(bad: Sequence[str], now: Numerals, other: Numerals) -> str:
    reasons = []
    if other.decimal != now.decimal:
        name = {",": "a comma", ".": "a point"}[other.decimal]
        reasons.append(f"its decimal mark is {name}")
    if other.thousands != now.thousands:
        name = {",": "commas", ".": "points", " ": "blanks", "'": "apostrophes"}[other.thousands]
        reasons.append(f"{name} separate thousands")
    added = [affix for affix in other.strip if affix not in now.strip]
    if added:
        reasons.append(f"{', '.join(map(repr, added))} stands beside the numbers")
    if other.accounting != now.accounting:
        reasons.append("negative numbers are in parentheses, or have their sign behind")
    text = next(text for text in bad if other.number(text) is not None)
    return (
        f"{', '.join(reasons)}: {_options(now, other)} reads {cut(text)} as "
        f"{other.number(text):.10g}"
    )
