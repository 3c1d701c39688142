"""The strength of the head's shrinkage."""

from __future__ import annotations

import numpy as np

__all__ = ["auto_strength", "checked_shrinkage"]

ROWS = 16.0
"""c of `shrinkage="auto"`: λ = c/n for scales, c k/n for k other numbers (docs/choosing.md)."""

LARGEST = 4.0
"""Largest λ of "auto": x hardly moves numbers that are shrunk this much."""


def checked_shrinkage(shrinkage: float | str | None) -> float | str | None:
    """Check and return the head's argument `shrinkage`.

    Raises:
        ValueError: it is neither None, nor "auto", nor a number ≥ 0.

    """
    if shrinkage is None or shrinkage == "auto":
        return shrinkage
    if isinstance(shrinkage, str) or not 0 <= shrinkage < np.inf:
        raise ValueError(f"shrinkage={shrinkage!r} must be None, 'auto' or a number ≥ 0.")
    return float(shrinkage)


def auto_strength(numbers: int, rows: int) -> float:
    """Return λ of "auto", given how many numbers are shrunk and how many rows they learn from."""
    return min(LARGEST, ROWS * numbers / rows)
