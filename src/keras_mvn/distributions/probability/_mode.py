"""The factors at which a box is most likely."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions.probability._newton import damped_newton
from keras_mvn.distributions.probability._truncated_normal import log_between, shrinkage_between

__all__ = ["mode_over_factors"]

_STEPS, _HALVINGS = 50, 30
"""Maximum number of steps to the mode, and of halvings of a step."""


def mode_over_factors(a: Array, b: Array, loadings: Array) -> tuple[Array, Array]:
    """The mode of φ(f) Π_j [Φ(b_j − v_jᵀ f) − Φ(a_j − v_jᵀ f)], and its precision there.

    (rows, d), (rows, d), (rows, d, r) → (rows, r), (rows, r, r), by Newton's method: the integrand
    is log-concave.
    """
    rows, _, r = loadings.shape
    transposed = np.swapaxes(loadings, -1, -2)

    def at(f: Array) -> tuple[Array, Array, Array]:
        common = (loadings @ f[..., None])[..., 0]
        low, high = a - common, b - common
        value, at_low, at_high = log_between(low, high)
        curvature = shrinkage_between(low, high, at_low, at_high)
        slope = -f - (transposed @ (at_high - at_low)[..., None])[..., 0]
        log_density = value.sum(axis=-1) - 0.5 * (f**2).sum(axis=-1)
        return log_density, slope, np.eye(r) + (transposed * curvature[..., None, :]) @ loadings

    return damped_newton(at, np.zeros((rows, r)), np.ones((rows, r)), _STEPS, _HALVINGS)
