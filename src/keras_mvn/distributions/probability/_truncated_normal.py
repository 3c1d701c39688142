"""The standard normal between two limits: its probability, and its density at the limits."""

from __future__ import annotations

import math

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["between", "log_between", "quantile_between", "shrinkage_between"]

_ROOT_2, _ROOT_2_OVER_PI = math.sqrt(2.0), math.sqrt(2.0 / math.pi)

_FAR = 30.0
"""Standard deviations beyond which a truncated normal is treated as a point (variance < 1e-3) and
probabilities are computed as logarithms: e⁻⁷⁰⁰ is at 37."""


def between(low: Array, high: Array) -> Array:
    """The probability Φ(high) − Φ(low)."""
    below, above, _ = _reflected(low, high)
    ndtr = require("scipy.special", "probability").ndtr
    return np.asarray(ndtr(above) - ndtr(below))


def quantile_between(low: Array, high: Array, u: Array) -> tuple[Array, Array]:
    """Return log [Φ(high) − Φ(low)], and the u quantile of the normal between the limits."""
    special = require("scipy.special", "probability")
    below, above, sign = _reflected(low, high)
    start = special.ndtr(below)
    share = special.ndtr(above) - start
    with np.errstate(divide="ignore"):
        log_share = np.log(share)
    drawn = sign * special.ndtri(np.clip(start + u * share, 1e-300, 1.0 - 1e-16))
    far = above < -_FAR
    if far.any():
        u = np.broadcast_to(u, far.shape)[far]
        log_share[far] = log_between(low[far], high[far])[0]
        log_start, log_end = special.log_ndtr(below[far]), special.log_ndtr(above[far])
        log_inside = np.logaddexp(log_start + np.log1p(-u), log_end + np.log(u))
        drawn[far] = sign[far] * special.ndtri_exp(log_inside)
    return log_share, drawn


def log_between(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Return log [Φ(high) − Φ(low)], and φ(low) and φ(high) divided by Φ(high) − Φ(low)."""
    special = require("scipy.special", "probability")
    below, above, sign = _reflected(low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_above = special.log_ndtr(above)
        ratio = np.exp(special.log_ndtr(below) - log_above)  # Φ(below)/Φ(above)
        value = log_above + np.log1p(-ratio)
        # φ/Φ by erfcx: far out, log φ − log Φ would be a difference of numbers like 1e17.
        shares = [
            np.where(np.isfinite(x), _ROOT_2_OVER_PI / special.erfcx(-x / _ROOT_2) * factor, 0.0)
            for x, factor in ((below, ratio / (1.0 - ratio)), (above, 1.0 / (1.0 - ratio)))
        ]
    return value, np.where(sign < 0, *shares[::-1]), np.where(sign < 0, *shares)


def _reflected(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Return the limits on the side where Φ is small, and −1 where they were reflected, else 1."""
    other = low > 0
    return np.where(other, -high, low), np.where(other, -low, high), np.where(other, -1.0, 1.0)


def shrinkage_between(low: Array, high: Array, at_low: Array, at_high: Array) -> Array:
    """Return 1 minus the variance of the normal between the limits; `at_…` from `log_between`."""
    with np.errstate(invalid="ignore", over="ignore"):
        high_end, low_end = (
            np.where(p > 0, x * p, 0.0) for x, p in ((high, at_high), (low, at_low))
        )
        shrinkage = (at_high - at_low) ** 2 + high_end - low_end
    return np.where(np.maximum(low, -high) > _FAR, 1.0, np.clip(shrinkage, 0.0, 1.0))
