"""Data with which the page draws ellipses and conditions: some hundred distributions as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions._student_law import StudentLaw
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
    """Return labels, locations, packed Cholesky factors, observations and inputs of these rows.

    Factors rather than covariances, because rounded factors still yield valid covariances. `radii`
    has, for each different ν, the half-width of an interval and the radius of an ellipse with 0, 1,
    … targets fixed, of which a Student's t learns how large the errors of its row are.
    """
    normal = data.model[rows].marginal(targets).require_elliptical("the report")
    nu = np.broadcast_to(normal.law.degrees_of_freedom, len(rows))
    different, which = np.unique([float(f"{v:.3g}") for v in nu], return_inverse=True)
    i, j = np.tril_indices(len(targets))
    inputs = list(data.x)[:INPUTS]
    return {
        "targets": [data.targets[k] for k in targets],
        "labels": [shortened(str(label), 60) for label in data.row_labels[rows]],
        "mean": _rounded(normal.center),
        "factor": _rounded(normal.scale_tril[:, i, j]),
        "observed": _rounded(data.y[np.ix_(rows, targets)]),
        "inputs": inputs,
        "values": [[_text(data.x[name][k]) for name in inputs] for k in rows],
        "level": LEVEL,
        "freedom": [None if np.isinf(v) else float(v) for v in nu],
        "radii": [_radii(StudentLaw(v), len(targets)) for v in different],
        "radius": which.tolist(),
    }


def _radii(law: StudentLaw, event_size: int) -> list[list[float]]:
    found = []
    for fixed in range(event_size + 1):
        given = law.given(np.zeros(()), fixed)[0]
        found.append([float(np.sqrt(given.squared_radius(LEVEL, m))) for m in (1, 2)])
    return found


def _rounded(values: Array) -> list[Any]:
    return [
        [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in row]
        for row in values.tolist()
    ]


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return MISSING if np.isnan(value) else f"{value:.6g}"
    return MISSING if value is None else shortened(str(value).strip() or MISSING, 60)
