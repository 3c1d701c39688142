"""How numbers are written in text: the decimal mark, separators of thousands, units beside them."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import final

from keras_mvn.tables.errors import TableError

__all__ = ["LIMIT", "THOUSANDS", "Numerals", "float_of", "mark_of"]

THOUSANDS = {
    ",": ",",
    ".": ".",
    "'": "'\u2019",
    " ": " \u00a0\u202f\u2009\u2007",
}
"""Separator of thousands → the characters that are written for it."""

_NAMES = {"space": " ", "blank": " ", "none": "", "": ""}

LIMIT = re.compile(r"[<>≤≥]=?\s*[\d.,]+")
"""A limit of detection: `<0.05` says where a value is, not what it is."""

_SIGNS = str.maketrans(dict.fromkeys("\u2212\u2013\ufe63\uff0d", "-"))
"""What typesetters write for a minus sign."""


@final
@dataclass(frozen=True)
class Numerals:
    """A way to write numbers.

    Args:
        decimal: str, the decimal mark: "." or ",".
        thousands: str, the separator of thousands, a key of `THOUSANDS`; "" for none.
        strip: texts beside a number that are ignored, such as "%" or "°C".
        accounting: bool, whether numbers in parentheses, or before a minus sign, are negative.

    """

    decimal: str = "."
    thousands: str = ""
    strip: tuple[str, ...] = ()
    accounting: bool = False

    @property
    def plain(self) -> bool:
        """Whether numbers are written as in a program, so that any parser reads them."""
        return self == Numerals()

    def number(self, text: str) -> float | None:
        """Return the number that the text stands for, or None if it is no number.

        Minus signs of typesetters and exponents of Fortran (`1.2D+01`) are read as well.

        >>> Numerals(decimal=",", thousands=".").number("343.814,04")
        343814.04
        >>> Numerals(strip=("$",)).number("-$12.50")
        -12.5
        """
        text = text.translate(_SIGNS).strip()
        if self.strip:
            text = self._without_affixes(text)
        negative = self.accounting and re.fullmatch(r"\(.*\)|[^-].*-", text) is not None
        if negative:
            text = self._without_affixes(text.strip("()-").strip())
        if self.decimal != "." or self.thousands:
            found = _pattern(self.decimal, self.thousands).fullmatch(text)
            if found is None:
                return None
            whole = re.sub(r"\D", "", found["whole"] or "")
            text = f"{found['sign']}{whole}.{found['fraction'] or ''}{found['exponent'] or ''}"
        number = float_of(text)
        return -number if negative and number is not None else number

    def _without_affixes(self, text: str) -> str:
        sign = text[:1] if text[:1] in ("+", "-") else ""
        rest = text[len(sign) :].strip()
        for affix in sorted(self.strip, key=len, reverse=True):
            if rest.startswith(affix):
                rest = rest.removeprefix(affix).strip()
            elif rest.endswith(affix):
                rest = rest.removesuffix(affix).strip()
        return sign + rest

    def affixes(self, text: str) -> tuple[str, ...]:
        """Return those of the texts in `strip` that stand beside the number."""
        bare = text.translate(_SIGNS).strip(" +-()")
        return tuple(a for a in self.strip if bare.startswith(a) or bare.endswith(a))


def mark_of(text: str) -> str:
    """Return the separator of thousands that a user names: itself, a variant of it, or "space".

    Raises:
        TableError: there is no such separator.

    """
    for mark, variants in THOUSANDS.items():
        if text and text in variants:
            return mark
    if text not in _NAMES:
        raise TableError(f"--thousands {text!r}: expected one of , . ' and space.")
    return _NAMES[text]


@functools.cache
def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    """Whole numbers in groups of three, or of two before the last three, as in India."""
    whole = r"\d+"
    if thousands:
        mark = f"[{re.escape(THOUSANDS[thousands])}]"
        whole = rf"(?:[1-9]\d{{0,2}}(?:{mark}\d{{3}})+|[1-9]\d?(?:{mark}\d\d)*{mark}\d{{3}}|\d+)"
    point = re.escape(decimal)
    return re.compile(
        rf"(?P<sign>[+-]?)(?=\d|{point}\d)(?P<whole>{whole})?(?:{point}(?P<fraction>\d*))?"
        r"(?P<exponent>[eEdD][+-]?\d+)?"
    )


_FORTRAN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)")


def float_of(text: str) -> float | None:
    """Parse a number; None for other text, and for what only Python accepts (1_000, nan)."""
    try:
        number = float(text)
    except ValueError:
        found = _FORTRAN.fullmatch(text)
        return float(f"{found[1]}e{found[2]}") if found else None
    return None if "_" in text or math.isnan(number) else number
