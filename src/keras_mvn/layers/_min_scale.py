"""The floor of a head's scales: none, given in units of y, or found in the data by `adapt`."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.fences import spread
from keras_mvn._core.types import Array
from keras_mvn.covariances import resolution as grids
from keras_mvn.covariances.moments import Moments

__all__ = ["AUTO", "START", "checked", "found_in", "given"]

AUTO = "auto"

START = 1.25
"""Smallest start of a scale, relative to its floor."""


def checked(min_scale: Any, event_size: int) -> float | str | tuple[float, ...] | None:
    """Check the head's argument.

    Raises:
        ValueError: it is neither None, "auto", a number above 0 nor d numbers that are not
            negative.

    """
    if min_scale is None or (isinstance(min_scale, str) and min_scale == AUTO):
        return min_scale
    try:
        values = np.asarray(min_scale, np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    fits = values.shape in ((), (event_size,)) and np.isfinite(values).all()
    if not fits or (values < 0.0).any() or not values.any():
        raise ValueError(
            f"min_scale={min_scale!r} must be None (no floor), 'auto' (from the data, by adapt), "
            f"or, in units of y, one number above 0 or {event_size} that are not negative."
        )
    return float(values) if values.ndim == 0 else tuple(values.tolist())


def given(min_scale: float | str | tuple[float, ...] | None, event_size: int) -> Array:
    """Return the floor before `adapt`: (d,)."""
    if min_scale is None or isinstance(min_scale, str):
        return np.zeros(event_size)
    return np.broadcast_to(np.asarray(min_scale, np.float64), (event_size,))


def found_in(moments: Moments) -> tuple[Array, Array]:
    """Return the resolution δ and the floor that "auto" sets: (d,), (d,)."""
    sample = np.zeros((0, len(moments.mean))) if moments.sample is None else moments.sample
    delta = grids.resolution(sample)
    return delta, grids.scale_floor(delta, spread(sample))
