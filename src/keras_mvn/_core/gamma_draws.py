"""Draws of a gamma variable that depend smoothly on its shape, on every backend.

Keras' own draws have a gradient by the shape on some backends only, and TensorFlow cannot compile
them with XLA. Here, a fixed number of proposals is drawn from normals, and the first one that is
accepted counts. With F the distribution function, F(draw; a) stays what it was when a changes, so
∂draw/∂a = −(∂F/∂a)/(∂F/∂draw). Both are taken by `tail_quadrature`, in the backward pass only.

Source: Marsaglia & Tsang, "A simple method for generating gamma variables", ACM Transactions on
Mathematical Software 26 (2000); Figurnov, Mohamed & Mnih, "Implicit reparameterization gradients",
NeurIPS 2018.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mvn._core.log_gamma import log_minus_digamma
from keras_mvn._core.numeric import differentiable
from keras_mvn._core.region_levels import gamma_log_density
from keras_mvn._core.tail_quadrature import tail_rule
from keras_mvn._core.types import Tensor

__all__ = ["log_gamma_draws"]

_PROPOSALS = 6
"""For a ≥ 1, more than 95 % are accepted: in one draw of 10⁸, none of them is."""


def log_gamma_draws(a: Tensor, samples: int, seeds: tuple[Any, Any]) -> Tensor:
    """Return draws of log G, G a gamma variable of shape a and mean 1: (...) → (samples, ...).

    Args:
        a: (...), at least 1.
        samples: number of draws.
        seeds: of normals and of uniform numbers; two that differ, or one `SeedGenerator` twice.

    """
    log_draws = ops.stop_gradient(_accepted(ops.stop_gradient(a), samples, seeds))
    return differentiable(_of_draws, _vjp, log_draws, a + ops.zeros_like(log_draws))


def _accepted(a: Tensor, samples: int, seeds: tuple[Any, Any]) -> Tensor:
    """Return log(h v/a), v = (1 + x/(3 √h))³, h = a − ⅓, for the first x that is accepted.

    x is normal, accepted with probability exp(½x² + h (1 − v + log v)). If none is, v is 1.
    """
    shape = (_PROPOSALS, samples, *ops.shape(a))
    x = keras.random.normal(shape, dtype=a.dtype, seed=seeds[0])
    u = keras.random.uniform(shape, dtype=a.dtype, seed=seeds[1])
    h = a - 1.0 / 3.0
    root = x / (3.0 * ops.sqrt(h))
    positive = root > -1.0
    log_v = 3.0 * ops.log1p(ops.where(positive, root, ops.zeros_like(root)))
    accepted = ops.log(u) < 0.5 * x * x + h * (log_v - ops.expm1(log_v))
    accepted = ops.logical_and(positive, accepted)
    found = ops.zeros_like(x[0])
    for k in reversed(range(_PROPOSALS)):
        found = ops.where(accepted[k], log_v[k], found)
    return found + ops.log1p(-1.0 / (3.0 * a))


def _of_draws(log_draws: Tensor, a: Tensor) -> Tensor:
    return ops.copy(log_draws)


def _vjp(bar: Tensor, output: Tensor, log_draws: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return 0 for the draws, and the gradient by a.

    log F′ = g(x; a) + log h(a), with ∂g/∂a = −(e^x − 1 − x) and ∂ log h/∂a = log a − ψ(a).
    """
    at, weights = tail_rule(gamma_log_density, log_draws, (a,), a)
    depth = gamma_log_density(at, a[..., None]) - gamma_log_density(log_draws, a)[..., None]
    by_shape = log_minus_digamma(a)[..., None] - (ops.expm1(at) - at)
    tail = ops.sum(weights * ops.exp(depth) * by_shape, axis=-1)
    return ops.zeros_like(log_draws), bar * ops.where(log_draws < 0, -tail, tail)
