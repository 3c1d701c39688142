"""The standard normal between two limits: its probability, and its density at them."""

from __future__ import annotations

import math

import numpy as np

from keras_mvn._optional import require
from keras_mvn.types import Array

__all__ = ["between", "log_between", "shrinkage_between"]

_ROOT_2, _ROOT_2_OVER_PI = math.sqrt(2.0), math.sqrt(2.0 / math.pi)

_FAR = 30.0
"""Standard deviations beyond which a truncated normal distribution is a point: variance < 1e-3."""


def between(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Φ(high) − Φ(low), Φ(low) and a sign, both limits reflected to where Φ is small."""
    ndtr = require("scipy.special", "probability").ndtr
    sign = np.where(low > 0, -1.0, 1.0)
    start = ndtr(np.where(low > 0, -high, low))
    return ndtr(np.where(low > 0, -low, high)) - start, start, sign


def log_between(low: Array, high: Array) -> tuple[Array, Array, Array]:
    """log [Φ(high) − Φ(low)], and φ(low) and φ(high) over that difference."""
    special = require("scipy.special", "probability")
    reflected = low > 0
    below, above = np.where(reflected, -high, low), np.where(reflected, -low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_above = special.log_ndtr(above)
        ratio = np.exp(special.log_ndtr(below) - log_above)  # Φ(below)/Φ(above)
        value = log_above + np.log1p(-ratio)
        # φ/Φ by erfcx: φ and Φ as logarithms would be differences of numbers like 1e17 far out.
        shares = [
            np.where(np.isfinite(x), _ROOT_2_OVER_PI / special.erfcx(-x / _ROOT_2) * factor, 0.0)
            for x, factor in ((below, ratio / (1.0 - ratio)), (above, 1.0 / (1.0 - ratio)))
        ]
    return value, np.where(reflected, shares[1], shares[0]), np.where(reflected, *shares)


def shrinkage_between(low: Array, high: Array, at_low: Array, at_high: Array) -> Array:
    """1 less the variance of the normal between the limits; `at_…` is what `log_between` gave."""
    with np.errstate(invalid="ignore", over="ignore"):
        high_end, low_end = (
            np.where(p > 0, x * p, 0.0) for x, p in ((high, at_high), (low, at_low))
        )
        shrinkage = (at_high - at_low) ** 2 + high_end - low_end
    return np.where(np.maximum(low, -high) > _FAR, 1.0, np.clip(shrinkage, 0.0, 1.0))
