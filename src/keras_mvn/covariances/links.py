"""Link functions that map any real number to a positive scale.

`positive` is the link of every structure. It is exponential around 0, so that a scale can vary
widely with x, and linear (upward) or reciprocal (downward) in its tails, so that neither a
collapsed nor an exploded scale loses its gradient. See docs/defaults.md for the measurements behind
this choice.
"""

from __future__ import annotations

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor

__all__ = ["KNEE", "LOG_LIMIT", "positive", "positive_from_log", "positive_inverse"]

KNEE = 3.0
"""Where `positive` stops being exponential: at 20 times, or a twentieth of, the adapted scale."""

LOG_LIMIT = 20.0
"""Largest absolute log scale that `positive_from_log` uses unchanged.

Beyond it, the log scale grows like a logarithm, so that (y − mean)²/scale³, which appears in the
gradient, stays within float32.
"""


def positive(raw: Tensor) -> Tensor:
    """Return exp(x) between −3 and 3; above, e³ (x − 2); below, the reciprocal of that at −x.

    Smooth (C¹); value and slope are 1 at 0.

    Args:
        raw: (...), any real numbers.

    Returns:
        (...), positive. Value and gradient are finite and nonzero in float32 up to raw = ±1e6.

    >>> import numpy as np
    >>> positive(np.array([-10.0, -1.0, 0.0, 1.0])).round(4)
    array([0.0062, 0.3679, 1.    , 2.7183])

    """
    return _exponential_to(KNEE, raw)


def positive_inverse(scale: Tensor) -> Tensor:
    """Return the raw number that `positive` maps to this scale.

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
    """Return exp(log_scale), exact from −20 to 20; linear above, reciprocal below.

    Meant for models whose output already is a logarithm.

    >>> import numpy as np
    >>> positive_from_log(np.array([0.0, 2.0])) == np.exp([0.0, 2.0])
    array([ True,  True])
    """
    return _exponential_to(LOG_LIMIT, log_scale)


def _exponential_to(knee: float, x: Tensor) -> Tensor:
    """Return exp(x) for |x| ≤ knee, continued by a straight line above; f(−x) = 1/f(x)."""
    xp = namespace(x)
    size = _absolute(x)
    beyond = xp.where(size > knee, size - knee, xp.zeros_like(size))
    grown = xp.exp(size - beyond) * (1.0 + beyond)
    return xp.where(x >= 0, grown, 1.0 / grown)


def _absolute(x: Tensor) -> Tensor:
    # |x| with slope 1 at 0. The slope of `abs` is 0 there, which would block the gradient at raw 0.
    return namespace(x).where(x >= 0, x, -x)
