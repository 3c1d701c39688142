"""A quadrature rule for the tail of a log-concave function of one variable, for Keras tensors.

Outward from any point, on the side away from the mode, such a function falls off ever faster.
Gauss–Legendre with 32 nodes integrates it down to e^(−26) of its first value, with an error below
1e-9 of the whole for the densities of `region_levels`. The number of nodes is fixed, so that the
rule vectorizes and compiles; a sum over its nodes may be differentiated by everything but the
nodes' distances, on which the integral does not depend.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from keras import ops

from keras_mvn._core.numeric import constant_like
from keras_mvn._core.types import Array, Tensor

__all__ = ["LogDensity", "tail_rule"]

_NODES = 32

_DEPTH = 26.0
"""Logarithm of the ratio of the first value of a tail to the last one that is kept."""

LogDensity = Callable[..., Tensor]
"""g(x, *parameters), concave, 0 at its mode x = 0."""


def tail_rule(
    log_density: LogDensity, start: Tensor, parameters: tuple[Tensor, ...], curvature: Tensor
) -> tuple[Tensor, Tensor]:
    """Return nodes from `start` outward, and their positive weights: (..., nodes) each.

    Args:
        log_density: g.
        start: (...), where the tail begins.
        parameters: of g, (...) each.
        curvature: (...), −g″ at the mode.

    """
    side = ops.where(start < 0, -ops.ones_like(start), ops.ones_like(start))
    length = ops.stop_gradient(_length(log_density, start, side, parameters, curvature))
    nodes, weights = (constant_like(array, start) for array in _gauss_legendre())
    return start[..., None] + (side * length)[..., None] * nodes, length[..., None] * weights


def _length(
    log_density: LogDensity,
    start: Tensor,
    side: Tensor,
    parameters: tuple[Tensor, ...],
    curvature: Tensor,
) -> Tensor:
    """Return the distance from `start` over which g falls by about `_DEPTH`: (...).

    The fall is taken as a power of the distance, through two points of it; two steps suffice.
    """
    first = log_density(start, *parameters)
    length = ops.sqrt(2.0 * _DEPTH / curvature)
    for _ in range(2):
        whole = first - log_density(start + side * length, *parameters)
        half = first - log_density(start + side * (0.5 * length), *parameters)
        power = ops.log(whole / half) / math.log(2.0)
        power = ops.where(power > 1.0, power, ops.ones_like(power))
        length = length * ops.exp(-ops.log(whole / _DEPTH) / power)
    return length


@functools.lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[Array, Array]:
    """Return nodes and weights of the rule on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return 0.5 * (1.0 + nodes), 0.5 * weights
