"""Which targets are meant: names or positions, one or several."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mvn._core.checks import fitting, in_order, limit
from keras_mvn._core.types import Array

__all__ = ["by_target", "limits", "named", "position", "positions"]


def position(target: Any, names: Sequence[str] | None, event_size: int) -> int:
    """The index of one target, given by name or by index (negative ones count from the end).

    Raises:
        ValueError: there is no such target.

    """
    if isinstance(target, str):
        if names is not None and target in names:
            return list(names).index(target)
        known = "have no names; use indices" if names is None else f"are {list(names)}"
        raise ValueError(f"There is no target {target!r}. The targets {known}.")
    try:
        index = operator.index(target)
    except TypeError:
        index = event_size
    if isinstance(target, bool) or not -event_size <= index < event_size:
        raise ValueError(
            f"There is no target {target!r}: an index must be an integer from {-event_size} to "
            f"{event_size - 1}, a name a string."
        )
    return index % event_size


def positions(targets: Any, names: Sequence[str] | None, event_size: int) -> np.ndarray:
    """Indices of one target or of several, each at most once.

    Raises:
        ValueError: no target, an unknown one, or one twice.

    """
    if isinstance(targets, slice):
        targets = range(event_size)[targets]
    one = isinstance(targets, str) or not np.iterable(targets)
    index = [position(target, names, event_size) for target in ([targets] if one else targets)]
    if not index or len(set(index)) < len(index):
        raise ValueError(f"{targets!r} must name at least one target, and each only once.")
    return np.array(index, dtype=np.intp)


def by_target(given: Any) -> Mapping[Any, Any] | None:
    """Target → value, of a mapping or of a pandas Series that names its entries; else None."""
    if isinstance(given, Mapping):
        return given
    if not (hasattr(given, "items") and hasattr(given, "index")) or hasattr(given, "columns"):
        return None
    series = dict(given.items())
    return series if all(isinstance(label, str) for label in series) else None


def limits(
    lower: Any, upper: Any, names: Sequence[str] | None, event_size: int
) -> tuple[Array, Array]:
    """Ends of a box (..., d): of arrays, of one number for all, or of target → number or (...).

    Raises:
        ValueError: an unknown target; NaN; another number of columns.

    """
    ends = []
    for given, name, none in ((lower, "lower", -np.inf), (upper, "upper", np.inf)):
        chosen = by_target(given)
        if chosen is not None:
            index = positions(list(chosen), names, event_size)
            columns = np.broadcast_arrays(*(limit(value, name) for value in chosen.values()))
            ends.append(np.full((*columns[0].shape, event_size), none))
            ends[-1][..., index] = np.stack(columns, axis=-1)
        else:
            ends.append(fitting(limit(in_order(given, names), name), (event_size,), name))
    return ends[0], ends[1]


def named(names: Sequence[str] | None, index: np.ndarray) -> tuple[str, ...] | None:
    """The names at these positions, or None."""
    return None if names is None else tuple(names[i] for i in index)
