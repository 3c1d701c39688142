"""χ² distribution function and quantile, for the radius of a joint region, without SciPy.

The core depends only on keras and numpy. These functions take scalars and use the standard library.
"""

from __future__ import annotations

import functools
import math

__all__ = ["chi_square_cdf", "chi_square_quantile"]


def chi_square_cdf(x: float, dof: int) -> float:
    """Return P(χ²_dof ≤ x) = P(dof/2, x/2), the regularized incomplete gamma function.

    >>> round(chi_square_cdf(4.605170185988092, 2), 12)
    0.9
    """
    a, x = 0.5 * dof, 0.5 * x
    if x <= 0.0:
        return 0.0
    if math.isinf(x):
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:  # series (Abramowitz & Stegun 6.5.29)
        term = total = 1.0 / a
        n = a
        while term > 1e-17 * total:
            n += 1.0
            term *= x / n
            total += term
        return front * total
    # continued fraction (6.5.31), by Lentz's method
    b = x + 1.0 - a
    c, h = 1e300, 1.0 / b
    d, i = h, 0
    while True:
        i += 1
        an = -i * (i - a)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        h *= d * c
        if abs(d * c - 1.0) < 1e-15 or i > 100_000:
            return 1.0 - front * h


@functools.lru_cache(maxsize=256)
def chi_square_quantile(level: float, dof: int) -> float:
    """Return x with P(χ²_dof ≤ x) = level, by bisection.

    Raises:
        ValueError: level is not between 0 and 1.

    >>> round(chi_square_quantile(0.9, 2), 12)
    4.605170185988

    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level!r} must be a probability between 0 and 1.")
    low, high = 0.0, float(dof)
    while chi_square_cdf(high, dof) < level:
        low, high = high, 2.0 * high
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return middle
        if chi_square_cdf(middle, dof) < level:
            low = middle
        else:
            high = middle
