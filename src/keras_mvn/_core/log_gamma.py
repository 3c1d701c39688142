"""log Γ, ψ and their differences for Keras tensors, because Keras has none of them.

All are Stirling's series, for arguments that are shifted up by Γ(x + 1) = x Γ(x), with the terms
that would cancel subtracted by hand. Source: Abramowitz & Stegun, 6.1.15, 6.1.41 and 6.3.18.
"""

from __future__ import annotations

from keras import ops

from keras_mvn._core.types import Tensor

__all__ = [
    "digamma_difference",
    "log_minus_digamma",
    "scaled_log_gamma_ratio",
    "stirling_error",
]

_SHIFT = 8
"""Smallest argument of Stirling's series: from x = 8 on, three terms are accurate to 1e-11."""


def scaled_log_gamma_ratio(x: Tensor, a: Tensor) -> Tensor:
    """Return log Γ(x + a) − log Γ(x) − a log x for x > 0, a ≥ 0: about a (a − 1)/(2 x).

    The logarithms are never computed separately, because for large x they would cancel.
    """
    half = _SHIFT // 2
    below = _log_product(x, a, range(half)) + _log_product(x, a, range(half, _SHIFT))
    y = x + _SHIFT
    leading = (y - 0.5) * ops.log1p(a / y) + a * (ops.log1p((a + _SHIFT) / x) - 1.0)
    return leading + _stirling_remainder(y + a) - _stirling_remainder(y) - below


def _log_product(x: Tensor, a: Tensor, steps: range) -> Tensor:
    """Return Σ log(1 + a/(x + k)) by one logarithm, of p = Π (1 + a/(x + k)) − 1 ≥ 0.

    Four factors stay within float32 up to a = 10⁹.
    """
    p = a / (x + steps[0])
    for k in steps[1:]:
        u = a / (x + k)
        p = p + u + p * u
    return ops.log1p(p)


def digamma_difference(x: Tensor, a: Tensor) -> Tensor:
    """Return ψ(x + a) − ψ(x) for x > 0, a ≥ 0."""
    above = sum(a / ((x + k) * (x + a + k)) for k in range(_SHIFT))
    y = x + _SHIFT
    return ops.log1p(a / y) + _digamma_remainder(y + a) - _digamma_remainder(y) + above


def log_minus_digamma(x: Tensor) -> Tensor:
    """Return log x − ψ(x) for x > 0: about 1/(2 x)."""
    steps = sum(1.0 / (x + k) - ops.log1p(1.0 / (x + k)) for k in range(_SHIFT))
    return steps - _digamma_remainder(x + _SHIFT)


def stirling_error(x: Tensor) -> Tensor:
    """Return log Γ(x) − (x − ½) log x + x − ½ log 2π for x > 0: about 1/(12 x)."""
    steps = sum((x + (k + 0.5)) * ops.log1p(1.0 / (x + k)) - 1.0 for k in range(_SHIFT))
    return _stirling_remainder(x + _SHIFT) + steps


def _stirling_remainder(y: Tensor) -> Tensor:
    inverse = 1.0 / y
    square = inverse * inverse
    return inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0))


def _digamma_remainder(y: Tensor) -> Tensor:
    inverse = 1.0 / y
    square = inverse * inverse
    tail = 1.0 / 120.0 - square * (1.0 / 252.0 - square / 240.0)
    return -0.5 * inverse - square * (1.0 / 12.0 - square * tail)
