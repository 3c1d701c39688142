"""The difference log Γ(x + a) − log Γ(x) for Keras tensors, because Keras has no log Γ."""

from __future__ import annotations

from keras import ops

from keras_mvn._core.types import Tensor

__all__ = ["log_gamma_ratio"]

_SHIFT = 8
"""Smallest argument of Stirling's series: from x = 8 on, three terms are accurate to 1e-11."""


def log_gamma_ratio(x: Tensor, a: Tensor) -> Tensor:
    """Return log Γ(x + a) − log Γ(x) for x > 0, a ≥ 0.

    The two logarithms are never computed separately, because for large x they would cancel. The
    argument is shifted up by 8 with Γ(x + 1) = x Γ(x), then Stirling's series is subtracted term
    by term.

    Source: Abramowitz & Stegun, 6.1.15 and 6.1.41.
    """
    below = sum(ops.log1p(a / (x + k)) for k in range(_SHIFT))
    y = x + _SHIFT
    leading = (y - 0.5) * ops.log1p(a / y) + a * (ops.log(y + a) - 1.0)
    return leading + _stirling_remainder(y + a) - _stirling_remainder(y) - below


def _stirling_remainder(y: Tensor) -> Tensor:
    inverse = 1.0 / y
    square = inverse * inverse
    return inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0))
