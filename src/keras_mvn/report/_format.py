"""Formatting of numbers, and lists, for people to read."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["duration", "estimate", "joined", "listed", "number", "percent", "plural", "signed"]

NO_BREAK = "\N{NO-BREAK SPACE}"

LONGEST = 6
"""Digits before, or zeros after, the decimal point, beyond which an exponent is used."""


def number(value: float, digits: int = 3) -> str:
    """Format a number with `digits` significant digits, without an exponent if that is short.

    >>> number(0.034567), number(-12345.6), number(3.2e-9), number(float("nan"))
    ('0.0346', '−12346', '3.2e−09', '–')
    >>> number(-0.0)
    '0.00'
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    value += 0.0  # −0 becomes 0
    size = 0 if value == 0 else math.floor(math.log10(abs(value)))
    if abs(size) > LONGEST:
        return _minus(f"{value:.{digits}g}")
    return _minus(f"{value:.{max(digits - 1 - size, 0)}f}")


def signed(value: float, decimals: int = 2) -> str:
    """Format a number with its sign, plus or minus; a number that rounds to 0 has none.

    >>> signed(0.5), signed(-0.25), signed(-0.001)
    ('+0.50', '−0.25', '0.00')
    """
    if math.isnan(value):
        return "–"
    rounded = round(value, decimals)
    return _minus(f"{rounded:+.{decimals}f}") if rounded else f"{0:.{decimals}f}"


def estimate(value: float, error: float, factor: float = 1.0) -> str:
    """Format a value and its standard error, to two digits of the error, without −0.00.

    >>> print(estimate(2.83214, 0.02134), estimate(0.842, 0.0116, factor=100), sep="; ")
    2.832 ± 0.021; 84.2 ± 1.2
    >>> print(estimate(-0.0001, 0.011))
    0.000 ± 0.011
    """
    value, error = factor * value, factor * error
    if not math.isfinite(value) or not math.isfinite(error) or error <= 0:
        return number(value)
    decimals = min(max(1 - math.floor(math.log10(error)), 0), LONGEST)
    value = round(value, decimals) + 0.0  # −0 becomes 0
    return _minus(f"{value:.{decimals}f} ±{NO_BREAK}{error:.{decimals}f}")


def percent(share: float, decimals: int = 0) -> str:
    """Format a share of 1 in percent.

    >>> percent(0.842)
    '84 %'
    """
    return "–" if math.isnan(share) else f"{100 * share:.{decimals}f} %"


def plural(count: int, noun: str) -> str:
    """Format a count and its noun, in the plural if needed.

    >>> plural(1, "row"), plural(20, "row")
    ('1 row', '20 rows')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def joined(words: Sequence[str]) -> str:
    """Join words as in a sentence.

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def listed(words: Sequence[str], most: int = 60) -> str:
    """Join words by commas, or only the first ones if there are more than `most`.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    text = ", ".join(words[:most])
    return text if len(words) <= most else f"{text} and {len(words) - most} more"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours.

    >>> duration(12.3), duration(200), duration(8000)
    ('12 s', '3 min 20 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _minus(text: str) -> str:
    return text.replace("-", "−")
