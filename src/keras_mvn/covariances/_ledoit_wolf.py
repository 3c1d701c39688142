"""The covariance estimate of Ledoit and Wolf, in NumPy float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array

__all__ = ["ledoit_wolf", "ledoit_wolf_share"]


def ledoit_wolf(y: Any) -> Array:
    """The Ledoit–Wolf covariance (d, d) of y (rows, d), made equivariant to units.

    With x = (y − mean)/sd of n complete rows, S = xᵀx/n, m = tr S/d = 1:
    ρ = min(b², δ²)/δ², δ² = ‖S − m I‖²/d, b² = (Σ ‖x_k‖⁴/n − ‖S‖²)/(n d), and the estimate is
    sd ((1 − ρ) S + ρ m I) sd.

    Raises:
        ValueError: y not (rows, d), infinite values, fewer than two complete rows, or a constant
            target.

    Source: Ledoit & Wolf 2004 (see `Shrinkage`), lemmas 3.2 to 3.5.

    """
    complete = _complete_rows(y)
    centered = complete - complete.mean(axis=0)
    unit = np.abs(centered).max(axis=0)  # squares of the values themselves could overflow
    constant = unit <= np.finfo(np.float64).eps * np.abs(complete).max(axis=0)
    if constant.any():
        raise ValueError(
            f"y: targets {np.flatnonzero(constant).tolist()} (counted from 0) are constant over "
            "the complete rows, so they have no correlations. Leave them out."
        )
    stddev = unit * np.sqrt(np.mean((centered / unit) ** 2, axis=0))
    shrunk = _shrink(centered / stddev)
    return stddev[:, None] * shrunk * stddev[None, :]


def _shrink(x: Array) -> Array:
    """(1 − ρ) S + ρ m I of centered rows (n, d)."""
    n, d = x.shape
    s, share = x.T @ x / n, ledoit_wolf_share(x)
    return (1.0 - share) * s + share * np.trace(s) / d * np.eye(d)


def ledoit_wolf_share(x: Array, ddof: int = 0) -> float:
    """The ρ in [0, 1] for which (1 − ρ) S + ρ m I is closest to E xᵀx/n, S = xᵀx/n, m = tr S/d.

    ρ = min(b²/δ², 1), δ² = ‖S − m I‖², b² = (mean ‖x_k‖⁴ − ‖S‖²)/(n − ddof), an estimate of
    E‖S − E S‖².

    Args:
        x: (n, d), rows about a mean of 0.
        ddof: 0 is Ledoit and Wolf's own estimate; 1 makes b² unbiased, and ρ is 1 for a single
            row.

    Source: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices", Journal of Multivariate Analysis 88 (2004), lemmas 3.2 to 3.5.

    """
    n = len(x)
    s = x.T @ x / n
    distance = np.sum((s - np.trace(s) / x.shape[1] * np.eye(x.shape[1])) ** 2)
    if n == ddof or distance == 0.0:  # nothing to estimate from, or S = m I already (d = 1, say)
        return float(n == ddof)
    error = (np.mean(np.sum(x * x, axis=1) ** 2) - np.sum(s * s)) / (n - ddof)
    return float(min(max(error, 0.0) / distance, 1.0))


def _complete_rows(y: Any) -> Array:
    if keras.ops.is_tensor(y):
        y = keras.ops.convert_to_numpy(y)
    values = np.array(y, dtype=np.float64)
    if values.ndim != 2 or values.shape[-1] == 0:
        raise ValueError(f"y has shape {values.shape}; expected training targets (rows, d).")
    if np.isinf(values).any():
        raise ValueError("y holds infinite values. Mark missing values as NaN.")
    complete = values[~np.isnan(values).any(axis=1)]
    if len(complete) < 2:
        raise ValueError(
            f"y has {len(complete)} complete rows out of {len(values)}; at least 2 rows without "
            "NaN are needed. Give Shrinkage a target matrix instead."
        )
    return complete
