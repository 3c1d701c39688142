"""The Ledoit–Wolf covariance estimate, in NumPy float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array

__all__ = ["ledoit_wolf", "ledoit_wolf_share"]


def ledoit_wolf(y: Any) -> Array:
    """Return the Ledoit–Wolf covariance (d, d) of y (rows, d), made equivariant to units.

    With x = (y − mean)/sd for n complete rows, S = xᵀx/n, m = tr S/d = 1:
    ρ = min(b², δ²)/δ², δ² = ‖S − m I‖²/d, b² = (Σ ‖x_k‖⁴/n − ‖S‖²)/(n d), and the estimate is
    sd ((1 − ρ) S + ρ m I) sd.

    Raises:
        ValueError: y is not of shape (rows, d), contains infinite values, has fewer than two
            complete rows, or has a constant target.

    Source: Ledoit & Wolf 2004 (see `Shrinkage`), lemmas 3.2 to 3.5.

    """
    complete = _complete_rows(y)
    centered = complete - complete.mean(axis=0)
    unit = np.abs(centered).max(axis=0)  # squaring the values directly could overflow
    constant = unit <= np.finfo(np.float64).eps * np.abs(complete).max(axis=0)
    if constant.any():
        raise ValueError(
            f"y: targets {np.flatnonzero(constant).tolist()} (counting from 0) are constant over "
            "the complete rows, so their correlations are undefined. Drop them."
        )
    stddev = unit * np.sqrt(np.mean((centered / unit) ** 2, axis=0))
    shrunk = _shrink(centered / stddev)
    return stddev[:, None] * shrunk * stddev[None, :]


def _shrink(x: Array) -> Array:
    """Return (1 − ρ) S + ρ m I for centered rows x (n, d)."""
    n, d = x.shape
    s, share = x.T @ x / n, ledoit_wolf_share(x)
    return (1.0 - share) * s + share * np.trace(s) / d * np.eye(d)


def ledoit_wolf_share(x: Array, ddof: int = 0) -> float:
    """Return the ρ in [0, 1] for which (1 − ρ) S + ρ m I is closest to E S, S = xᵀx/n, m = tr S/d.

    ρ = min(b²/δ², 1), δ² = ‖S − m I‖², b² = (mean ‖x_k‖⁴ − ‖S‖²)/(n − ddof), an estimate of
    E‖S − E S‖².

    Args:
        x: (n, d), rows with mean 0.
        ddof: int; 0 gives Ledoit and Wolf's own estimate, 1 makes b² unbiased, with ρ = 1 for a
            single row.

    Source: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices", Journal of Multivariate Analysis 88 (2004), lemmas 3.2 to 3.5.

    """
    n = len(x)
    s = x.T @ x / n
    distance = np.sum((s - np.trace(s) / x.shape[1] * np.eye(x.shape[1])) ** 2)
    if n == ddof or distance == 0.0:  # too few rows to estimate, or S = m I already (e.g. d = 1)
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
        raise ValueError("y contains infinite values. Mark missing values as NaN.")
    complete = values[~np.isnan(values).any(axis=1)]
    if len(complete) < 2:
        raise ValueError(
            f"y has {len(complete)} complete rows out of {len(values)}; at least 2 rows without "
            "NaN are needed. Otherwise, pass a target matrix to Shrinkage."
        )
    return complete
