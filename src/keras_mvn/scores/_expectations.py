"""Expectations over the variable that scales distributions with tails, and over draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["DRAWS", "MOST_PARTS", "averaged"]

DRAWS = 1000
"""Draws from distributions that aren't mixtures of elliptical ones, or of too many of these."""

MOST_PARTS = 8
"""Components up to which all pairs of these are compared: their number grows with its square."""


def averaged(nodes: tuple[Array, Array], function: Callable[[Array], Array]) -> Array:
    """Average a function of V over the nodes of its law.

    Args:
        nodes: values of V and their weights, (n, nodes) or (nodes,) each.
        function: V, (n, 1) or (1,), → (n,) or (n, d).

    """
    values, weights = nodes
    total: Any = 0.0
    for k in range(values.shape[-1]):
        value, weight = function(values[..., k, None]), weights[..., k]
        if weight.ndim:
            weight = weight.reshape(-1, *[1] * (value.ndim - 1))
        total = total + weight * value
    return np.asarray(total)
