"""Contents of cells that mean "missing"."""

from __future__ import annotations

__all__ = ["MISSING_NUMBERS", "MISSING_TEXTS"]

MISSING_TEXTS = frozenset(
    {"", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NaT", "null", "NULL", "Null"}
)
"""What counts as missing among categories.

Not "None", "NA" nor "-": a house without a garage, Namibia and Rhesus negative are categories.
"""

_OF_PANDAS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)

_OF_OTHERS = (
    *("NaT", "n.a.", "n.a", "n/d", "n.d.", "nd", "#NUM!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?"),
    *("#NULL!", r"\N", "(null)", "missing", "--", "---", "-", "\u2013", "\u2014", "\u2212", "."),
    *("..", "...", "\u2026", "*", "**", "?", "1.#INF", "-1.#INF", "1.#SNAN", "-1.#SNAN"),
)

MISSING_NUMBERS = frozenset(text.lower() for text in (*_OF_PANDAS, *_OF_OTHERS))
"""What counts as missing among numbers, dates and booleans, in lower case.

The list that pandas reads as missing, and what spreadsheets, databases, statistics packages and
typists write.
"""
