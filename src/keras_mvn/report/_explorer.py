"""Data with which the page draws ellipses and conditions: some hundred distributions as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.chi_square import chi_square_quantile
from keras_mvn._core.types import Array
from keras_mvn.report._comparison import LEVEL
from keras_mvn.report._data import ReportData
from keras_mvn.report._svg import shortened

__all__ = ["ROWS", "explorer_of", "rows_of"]

ROWS = 300
"""Maximum number of rows embedded in the page."""

INPUTS = 40
"""Maximum number of input columns shown for a row."""

MISSING = "missing"
"""Text shown for a missing input."""

DIGITS = 9
"""Digits of embedded numbers; conditioning on strongly correlated targets loses some."""


def rows_of(n: int, also: tuple[int, ...]) -> np.ndarray:
    """Return at most `ROWS` of n rows, evenly spaced, including those in `also`."""
    if n <= ROWS:
        return np.arange(n)
    rows = np.linspace(0, n - 1, ROWS - len(also)).astype(int)
    return np.union1d(rows, np.array(also, dtype=int))


def explorer_of(data: ReportData, targets: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Return labels, means, packed Cholesky factors, observations and inputs of these rows.

    Factors rather than covariances, because rounded factors still yield valid covariances.
    """
    normal = data.model[rows].marginal(targets)
    i, j = np.tril_indices(len(targets))
    inputs = list(data.x)[:INPUTS]
    return {
        "targets": [data.targets[k] for k in targets],
        "labels": [shortened(str(label), 60) for label in data.row_labels[rows]],
        "mean": _rounded(normal.mean),
        "factor": _rounded(normal.scale_tril[:, i, j]),
        "observed": _rounded(data.y[np.ix_(rows, targets)]),
        "inputs": inputs,
        "values": [[_text(data.x[name][k]) for name in inputs] for k in rows],
        "level": LEVEL,
        "radius": {m: float(np.sqrt(chi_square_quantile(LEVEL, m))) for m in (1, 2)},
    }


def _rounded(values: Array) -> list[Any]:
    return [
        [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in row]
        for row in values.tolist()
    ]


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return MISSING if np.isnan(value) else f"{value:.6g}"
    return MISSING if value is None else shortened(str(value).strip() or MISSING, 60)
