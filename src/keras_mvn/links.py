"""Links: from any real number to a positive scale.

`positive` is the link of every structure. It is exponential around 0, so that a scale can vary
over decades with x, and a power law in its tails, so that neither a collapsed nor an exploded
scale loses its gradient (docs/defaults.md holds the measurement behind it).
"""

from __future__ import annotations

from keras_mvn._numeric import namespace
from keras_mvn.types import Tensor

__all__ = ["positive", "positive_from_log", "positive_inverse"]

LOG_LIMIT = 20.0
"""Up to here a log scale is taken at its word; beyond, it grows like a logarithm, so that
(y − mean)²/scale³, which the gradient meets, stays a float32 number."""


def _absolute(x: Tensor) -> Tensor:
    # |x| with slope 1 at 0, where the slope of `abs` is 0 and would stop a raw output of zero.
    return namespace(x).where(x >= 0, x, -x)


def positive(raw: Tensor) -> Tensor:
    """exp(3 asinh(raw / 3)): 1 with slope 1 at 0, (2x/3)³ far up, its reciprocal far down.

    Args:
        raw: (...), any real numbers.

    Returns:
        (...), positive. Value and gradient are finite and not zero for |raw| ≤ 1e6 in float32.

    >>> import numpy as np
    >>> positive(np.array([-1e4, -1.0, 0.0, 1.0, 1e4])).round(12)
    array([0.00000000e+00, 3.74596480e-01, 1.00000000e+00, 2.66953018e+00,
           2.96296363e+11])
    """
    xp = namespace(raw)
    t = _absolute(raw) / 3.0
    root = t + xp.sqrt(t * t + 1.0)
    cube = root * root * root
    return xp.where(raw >= 0, cube, 1.0 / cube)


def positive_inverse(scale: Tensor) -> Tensor:
    """The raw number whose scale this is: 3 sinh(log(scale) / 3).

    >>> import numpy as np
    >>> positive_inverse(positive(np.array([-7.0, 0.0, 2.5])))
    array([-7. ,  0. ,  2.5])
    """
    xp = namespace(scale)
    root = xp.exp(xp.log(scale) / 3.0)
    return 1.5 * (root - 1.0 / root)


def positive_from_log(log_scale: Tensor) -> Tensor:
    """exp(log_scale), exactly, up to |log_scale| = 20; beyond, a power law instead of overflow.

    For models that emit logarithms already.

    >>> import numpy as np
    >>> positive_from_log(np.array([-1.0, 0.0, 2.0])) == np.exp([-1.0, 0.0, 2.0])
    array([ True,  True,  True])
    """
    xp = namespace(log_scale)
    size = _absolute(log_scale)
    beyond = xp.where(size > LOG_LIMIT, size - LOG_LIMIT, xp.zeros_like(size))
    bounded = size - beyond + xp.log(1.0 + beyond)
    return xp.exp(xp.where(log_scale >= 0, bounded, -bounded))
