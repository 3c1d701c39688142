"""Real tables used by several benchmarks, read from the folder given as --data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

__all__ = ["air", "as_float32", "diabetes", "divide", "energy"]

Table = tuple[np.ndarray, np.ndarray]


def _read(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the header and the numbers of a CSV file, without blank rows."""
    with path.open(encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file)
    return header, np.array([row for row in rows if all(row)], dtype=np.float64)


def air(data: Path) -> Table:
    """Load US EPA air quality: 15 inputs, 6 pollutants."""
    header, table = _read(data / "air.csv")
    target = np.array([name.startswith("max_") for name in header])
    return table[:, ~target], table[:, target]


def energy(data: Path) -> Table:
    """Load UCI 242: 8 inputs, heating and cooling load."""
    _, table = _read(data / "energy_efficiency.csv")
    return table[:, :8], table[:, 8:10]


def diabetes(data: Path) -> Table:
    """Load scikit-learn's diabetes table: 4 inputs, 6 blood-serum measurements."""
    from sklearn.datasets import load_diabetes

    table = load_diabetes(scaled=False).data
    return table[:, :4], table[:, 4:]


def divide(x: np.ndarray, y: np.ndarray, parts: list[np.ndarray]) -> list[Table]:
    """Return the rows of every part in float32; inputs standardized by those of the first."""
    mean, sd = x[parts[0]].mean(axis=0), x[parts[0]].std(axis=0)
    x = (x - mean) / np.where(sd > 0, sd, 1.0)
    return as_float32((x[rows], y[rows]) for rows in parts)


def as_float32(pairs) -> list[Table]:
    """Convert (x, y) pairs to single precision."""
    return [(x.astype("float32"), y.astype("float32")) for x, y in pairs]
