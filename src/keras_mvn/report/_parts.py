"""Into which parts an input is cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_mvn.calibration._slices import quantile_bins

__all__ = ["BINS", "parts_of"]

BINS = 4
"""Into which an input is cut."""


def parts_of(name: str, column: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Labels and rows: bins of numbers, each of few values; of names, what is missing apart."""
    missing = _missing(column)
    if not missing.any():
        yield from quantile_bins(name, column, BINS)
        return
    yield f"{name} is missing", missing
    known = np.flatnonzero(~missing)
    if len(known):
        for label, member in quantile_bins(name, column[known], BINS):
            rows = np.zeros(len(column), dtype=bool)
            rows[known[member]] = True
            yield label, rows


def _missing(column: np.ndarray) -> np.ndarray:
    """Empty texts and Nones; numbers and their NaN are left to the bins."""
    if column.dtype.kind not in "OUS":
        return np.zeros(len(column), dtype=bool)
    return np.array([v is None or v != v or not str(v).strip() for v in column.tolist()], bool)
