"""Data with which the page draws regions and conditions: some hundred distributions as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions import Distribution
from keras_mvn.distributions._parts import Part
from keras_mvn.distributions._student_law import StudentLaw
from keras_mvn.report._comparison import LEVEL
from keras_mvn.report._data import ReportData
from keras_mvn.report._svg import shortened

__all__ = ["ROWS", "explorer_of", "rows_of"]

ROWS = 300
"""Maximum number of rows embedded in the page."""

MOST_COMPONENTS = 2000
"""Number of components of all rows above which fewer rows are embedded."""

LIGHTEST = -12.0
"""Logarithm of the weight up to which a component is left out."""

INPUTS = 40
"""Maximum number of input columns shown for a row."""

MISSING = "missing"
"""Text shown for a missing input."""

DIGITS = 9
"""Digits of embedded numbers; conditioning on strongly correlated targets loses some."""


def rows_of(model: Distribution, also: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of at most `ROWS` rows, evenly spaced, including those in `also`.

    Mixtures of many components get fewer rows, so that the page stays small.
    """
    n, components = len(model), len(model.parts() or ())
    most = max(len(also) + 1, min(ROWS, MOST_COMPONENTS // max(components, 1)))
    if n <= most:
        return np.arange(n)
    rows = np.linspace(0, n - 1, most - len(also)).astype(int)
    return np.union1d(rows, np.array(also, dtype=int))


def explorer_of(data: ReportData, targets: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Return labels, components, observations and inputs of these rows.

    A component has the logarithm of its weight, its location, and the packed Cholesky factor of its
    scale matrix: factors rather than covariances, because rounded factors still yield valid
    covariances. `radii` has, for each different ν, the half-width of an interval and the radius of
    an ellipse with 0, 1, … targets fixed, of which a Student's t learns how large the errors of its
    row are.
    """
    components = data.model[rows].marginal(targets).parts() or ()
    nu = np.stack([np.broadcast_to(p.law.degrees_of_freedom, len(rows)) for p in components])
    rounded = np.array([float(f"{v:.3g}") for v in nu.ravel()])
    different, which = np.unique(rounded, return_inverse=True)
    which = which.reshape(nu.shape)
    inputs = list(data.x)[:INPUTS]
    each = [_components(part, nu[m], which[m]) for m, part in enumerate(components)]
    return {
        "targets": [data.targets[k] for k in targets],
        "labels": [shortened(str(label), 60) for label in data.row_labels[rows]],
        "parts": [_of_row([one[k] for one in each]) for k in range(len(rows))],
        "observed": _rounded(data.y[np.ix_(rows, targets)]),
        "inputs": inputs,
        "values": [[_text(data.x[name][k]) for name in inputs] for k in rows],
        "level": LEVEL,
        "radii": [_radii(StudentLaw(v), len(targets)) for v in different],
    }


def _components(part: Part, nu: Array, radius: np.ndarray) -> list[dict[str, Any]]:
    """Return what one component is in each row."""
    i, j = np.tril_indices(part.gaussian.event_size)
    log_weight = np.broadcast_to(part.log_weight, len(nu))
    mean = _rounded(part.gaussian.mean)
    factor = _rounded(part.gaussian.scale_tril()[:, i, j])
    return [
        {
            "log": _rounded(log_weight[k : k + 1, None])[0][0],
            "mean": mean[k],
            "factor": factor[k],
            "nu": None if np.isinf(nu[k]) else float(nu[k]),
            "radius": int(radius[k]),
        }
        for k in range(len(nu))
    ]


def _of_row(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the components that a row has, without those that weigh nothing."""
    return [one for one in parts if one["log"] is not None and one["log"] > LIGHTEST]


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
