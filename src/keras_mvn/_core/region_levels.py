"""The probability of a squared distance not larger than q, for Keras tensors.

For a normal, q is a χ²_d variable; for a Student's t with ν degrees of freedom, q/d is an
F variable. Neither Keras nor PyTorch has the incomplete beta function, so it is an integral: with
δ = log(q/d), the density of δ is

    h e^(g(δ)),  g(δ) = a δ − (a + b) log(1 + a/(a + b) (e^δ − 1)),  a = d/2, b = ν/2,

whose mode is δ = 0, and h = √(ab/(2π(a + b))) to within Stirling's error. g is concave, so
`tail_quadrature` integrates the tail beyond q, on the side away from the mode. Only small numbers
are subtracted: the error is below 2e-6 in float32 (d up to 200) and below 1e-9 in float64.

The gradient is that of the sum over nodes: the density by q, and another integral by ν.
"""

from __future__ import annotations

import math

from keras import ops

from keras_mvn._core.log_gamma import stirling_error
from keras_mvn._core.tail_quadrature import LogDensity, tail_rule
from keras_mvn._core.types import Tensor

__all__ = ["chi_square_level", "gamma_log_density", "student_level"]

_NEAR, _FAR = 4.0, 30.0
"""g is below −25 at 4 + 30/rate, where `rate` is that of the exponential of its tail."""

_TINY = 1e-35
"""Added to q/d, which may be 0."""


def chi_square_level(squared: Tensor, count: Tensor) -> Tensor:
    """Return P(χ²_count ≤ squared): (...), (...) → (...); 0 where the count is 0.

    >>> round(float(chi_square_level(ops.convert_to_tensor(4.6051702), 2.0)), 5)
    0.9
    """
    dof = _positive(squared, count)
    a, delta = 0.5 * dof, _log_ratio(squared, dof)
    log_height = 0.5 * ops.log(a / (2.0 * math.pi)) - stirling_error(a)
    outward = _bounded(delta, -_NEAR - _FAR / a, _NEAR * ops.ones_like(a))
    return _level(_tail(gamma_log_density, outward, (a,), a, log_height), delta, squared, count)


def student_level(squared: Tensor, count: Tensor, nu: Tensor) -> Tensor:
    """Return P(count F ≤ squared), F with `count` and ν degrees of freedom: (...), 0 for count 0.

    >>> nu = ops.convert_to_tensor(4.0)
    >>> round(float(student_level(ops.convert_to_tensor(4.5448), 1.0, nu)), 4)  # |t| ≤ 2.1318
    0.9
    """
    dof = _positive(squared, count)
    a, b, delta = 0.5 * dof, 0.5 * nu * ops.ones_like(squared), _log_ratio(squared, dof)
    curvature = a / (a + b) * b
    errors = stirling_error(a + b) - stirling_error(a) - stirling_error(b)
    log_height = 0.5 * ops.log(curvature / (2.0 * math.pi)) + errors
    # I_x(a, b) = 1 − I_{1−x}(b, a): with the smaller of both first, 1 + p (e^δ − 1) ≥ ½.
    swapped = a > b
    smaller, larger = ops.where(swapped, b, a), ops.where(swapped, a, b)
    outward = ops.where(swapped, -delta, delta)
    outward = _bounded(outward, -_NEAR - _FAR / smaller, _NEAR + _FAR / larger)
    tail = _tail(_of_student, outward, (smaller, larger), curvature, log_height)
    return _level(tail, delta, squared, count)


def _positive(squared: Tensor, count: Tensor) -> Tensor:
    """Return the count, (...), with 1 in place of 0."""
    count = count * ops.ones_like(squared)
    return ops.where(count > 0, count, ops.ones_like(count))


def _log_ratio(squared: Tensor, dof: Tensor) -> Tensor:
    """Return log(q/d), with a finite slope at q = 0."""
    return ops.log(squared / dof + _TINY)


def _bounded(delta: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return δ, moved to bounds beyond which there is a probability below 1e-11; NaN stays NaN."""
    delta = ops.where(delta < lower, ops.stop_gradient(lower), delta)
    return ops.where(delta > upper, ops.stop_gradient(upper), delta)


def _level(tail: Tensor, delta: Tensor, squared: Tensor, count: Tensor) -> Tensor:
    level = ops.where(delta < 0, tail, 1.0 - tail)
    return ops.where(count * ops.ones_like(squared) > 0, level, ops.zeros_like(level))


def gamma_log_density(delta: Tensor, a: Tensor) -> Tensor:
    """Return g for b = ∞: e^δ is then a gamma variable of shape a, divided by a."""
    return -a * (ops.expm1(delta) - delta)


def _of_student(delta: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a * delta - (a + b) * ops.log1p(a / (a + b) * ops.expm1(delta))


def _tail(
    log_density: LogDensity,
    start: Tensor,
    parameters: tuple[Tensor, ...],
    curvature: Tensor,
    log_height: Tensor,
) -> Tensor:
    """Return the integral of h e^g from `start` outward, away from 0: (...)."""
    at, weights = tail_rule(log_density, start, parameters, curvature)
    log_values = log_density(at, *(x[..., None] for x in parameters)) + log_height[..., None]
    return ops.sum(weights * ops.exp(log_values), axis=-1)
