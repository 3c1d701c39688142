"""Predictions of the other targets, given measurements that some rows lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions import Distribution

__all__ = ["conditioned"]


def conditioned(normal: Distribution, values: Mapping[str, Array]) -> Distribution:
    """Condition the other targets on those in `values`; NaN means not measured in this row."""
    left = [name for name in normal.target_names or () if name not in values]
    variance = {t: np.where(np.isnan(v), np.inf, 0.0) for t, v in values.items()}
    if not any(np.isinf(v).any() for v in variance.values()):
        return normal.condition(values)
    return _by_pattern(normal, values, left)


def _by_pattern(normal: Distribution, values: Mapping[str, Array], left: list[str]) -> Distribution:
    """Condition together all rows in which the same targets were measured."""
    names = list(values)
    measured = ~np.isnan(np.stack([values[name] for name in names], axis=1))
    patterns, which = np.unique(measured, axis=0, return_inverse=True)
    parts: list[Any] = []
    order: list[np.ndarray] = []
    for i, pattern in enumerate(patterns):
        rows = np.flatnonzero(which.ravel() == i)
        part = normal[rows]
        known = {n: values[n][rows] for n, there in zip(names, pattern, strict=True) if there}
        parts.append((part.condition(known) if known else part).marginal(left))
        order.append(rows)
    joined = type(parts[0]).concatenate(parts)
    return joined[np.argsort(np.concatenate(order))]
