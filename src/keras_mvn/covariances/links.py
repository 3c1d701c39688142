"""Links: from any real number to a positive scale.

`positive` is the link of every structure: exponential around 0, so that a scale can vary widely
with x, and linear (upwards) or reciprocal (downwards) in its tails, so that neither a collapsed
nor an exploded scale loses its gradient. docs/defaults.md holds the measurement behind it.
"""

from __future__ import annotations

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor

__all__ = ["KNEE", "LOG_LIMIT", "positive", "positive_from_log", "positive_inverse"]

KNEE = 3.0
"""Where `positive` leaves the exponential: at 20 times, or a twentieth of, the adapted scale."""

LOG_LIMIT = 20.0
"""Up to here a log scale is taken at its word; beyond, it grows like a logarithm, so that
(y − mean)²/scale³, which the gradient meets, stays a float32 number."""


def positive(raw: Tensor) -> Tensor:
    """exp(x) between −3 and 3; above, e³ (x − 2); below, the reciprocal of that at −x.

    Smooth (C¹), 1 with slope 1 at 0.

    Args:
        raw: (...), any real numbers.

    Returns:
        (...), positive. Value and gradient are finite and not zero in float32 up to raw = ±1e6.

    >>> import numpy as np
    >>> positive(np.array([-10.0, -1.0, 0.0, 1.0])).round(4)
    array([0.0062, 0.3679, 1.    , 2.7183])

    """
    return _exponential_to(KNEE, raw)


def positive_inverse(scale: Tensor) -> Tensor:
    """The raw number whose scale this is.

    >>> import numpy as np
    >>> positive_inverse(positive(np.array([-7.0, 0.0, 2.5])))
    array([-7. ,  0. ,  2.5])
    """
    xp = namespace(scale)
    log_scale = xp.log(scale)
    size = _absolute(log_scale)
    beyond = xp.where(size > KNEE, size - KNEE, xp.zeros_like(size))
    raw = size - beyond + (xp.exp(beyond) - 1.0)
    return xp.where(log_scale >= 0, raw, -raw)


def positive_from_log(log_scale: Tensor) -> Tensor:
    """exp(log_scale), exactly, from −20 to 20; linear above, reciprocal below.

    For models that emit logarithms already.

    >>> import numpy as np
    >>> positive_from_log(np.array([0.0, 2.0])) == np.exp([0.0, 2.0])
    array([ True,  True])
    """
    return _exponential_to(LOG_LIMIT, log_scale)


def _exponential_to(knee: float, x: Tensor) -> Tensor:
    """exp(x) for |x| ≤ knee, continued by a straight line; f(−x) = 1/f(x)."""
    xp = namespace(x)
    size = _absolute(x)
    beyond = xp.where(size > knee, size - knee, xp.zeros_like(size))
    grown = xp.exp(size - beyond) * (1.0 + beyond)
    return xp.where(x >= 0, grown, 1.0 / grown)


def _absolute(x: Tensor) -> Tensor:
    # |x| with slope 1 at 0, where the slope of `abs` is 0 and would stop a raw output of zero.
    return namespace(x).where(x >= 0, x, -x)
