"""Targets that are copies of each other, so that their covariance is singular except for noise."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions import Distribution

__all__ = ["copies", "smallest_eigenvalue"]

COPY = 1e-5
"""1 − `|correlation|` of two targets in the test rows below which one is a copy of the other."""

FEWEST = 5
"""Minimum number of rows from which copies can be detected."""

MANY_TARGETS = 500
"""Number of targets beyond which no eigenvalues are computed."""


def copies(y: Array) -> tuple[int, int] | None:
    """Return the positions of two targets that are copies of each other; None if there are none."""
    complete = y[~np.isnan(y).any(axis=1)]
    if len(complete) < FEWEST:
        return None
    varying = np.flatnonzero(np.ptp(complete, axis=0) > 0)
    if len(varying) < 2:
        return None
    correlation = np.abs(np.corrcoef(complete[:, varying], rowvar=False))
    np.fill_diagonal(correlation, 0.0)
    i, j = np.unravel_index(int(np.nanargmax(correlation)), correlation.shape)
    found = int(min(varying[i], varying[j])), int(max(varying[i], varying[j]))
    return found if correlation[i, j] > 1.0 - COPY else None


def smallest_eigenvalue(normal: Distribution) -> float:
    """Smallest eigenvalue of the first row's correlation matrix; 1 if it is not computed."""
    if normal.event_size > MANY_TARGETS:
        return 1.0
    return float(np.linalg.eigvalsh(normal[:1].correlation[0])[0])
