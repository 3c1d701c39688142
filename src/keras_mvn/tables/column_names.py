"""Names of columns in one text, separated by commas, although names may hold commas themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["columns_named"]


def columns_named(texts: str | Iterable[str] | None, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names in texts such as `a,b,c`; the longest names that exist win.

    >>> columns_named(["CO, ppm,NO2", "c"], ["CO, ppm", "NO2", "CO"])
    ('CO, ppm', 'NO2', 'c')
    """
    given = [texts] if isinstance(texts, str) else texts or []
    longest_first = sorted(columns, key=len, reverse=True)
    return tuple(name for text in given for name in _split(text.strip(), longest_first))


def _split(text: str, longest_first: Sequence[str]) -> list[str]:
    names = []
    while text:
        name = next((c for c in longest_first if _begins(text, c)), text.partition(",")[0])
        names.append(name.strip() if name not in longest_first else name)
        text = text[len(name) :].lstrip().removeprefix(",").lstrip()
    return [name for name in names if name]


def _begins(text: str, name: str) -> bool:
    """Whether the text begins with this whole name."""
    rest = text[len(name) :].lstrip()
    return bool(name) and text.startswith(name) and (not rest or rest.startswith(","))
