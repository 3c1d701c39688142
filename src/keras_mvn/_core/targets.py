"""Targets as users specify them: by name or position, as table columns, with missing values."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mvn._core.checks import as_numbers, finite, fitting, limit
from keras_mvn._core.types import Array

__all__ = [
    "by_target",
    "checked_missing",
    "column_labels",
    "in_order",
    "limits",
    "named",
    "names_of_targets",
    "observations",
    "observed_targets",
    "position",
    "positions",
    "target_names_of",
]


def position(target: Any, names: Sequence[str] | None, event_size: int) -> int:
    """Return the index of a target, given by name or by index (negative: from the end).

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
            f"{event_size - 1}, a name must be a string."
        )
    return index % event_size


def positions(targets: Any, names: Sequence[str] | None, event_size: int) -> np.ndarray:
    """Return indices of one or several targets, each at most once.

    Raises:
        ValueError: there is no target, or one is unknown or repeated.

    """
    if isinstance(targets, slice):
        targets = range(event_size)[targets]
    one = isinstance(targets, str) or not np.iterable(targets)
    index = [position(target, names, event_size) for target in ([targets] if one else targets)]
    if not index or len(set(index)) < len(index):
        raise ValueError(f"{targets!r} must name at least one target, and each only once.")
    return np.array(index, dtype=np.intp)


def by_target(given: Any) -> Mapping[Any, Any] | None:
    """Return a mapping from target to value, from a mapping or a named pandas Series; else None."""
    if isinstance(given, Mapping):
        return given
    if not (hasattr(given, "items") and hasattr(given, "index")) or hasattr(given, "columns"):
        return None
    series = dict(given.items())
    return series if all(isinstance(label, str) for label in series) else None


def limits(
    lower: Any, upper: Any, names: Sequence[str] | None, event_size: int
) -> tuple[Array, Array]:
    """Return lower and upper ends of a box (..., d).

    Each may be an array, one number for all, or a mapping from target to a number or (...).

    Raises:
        ValueError: a target is unknown, a limit is NaN, or the number of columns is wrong.

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
    """Return the names at these positions, or None if there are no names."""
    return None if names is None else tuple(names[i] for i in index)


_NAN = {"raise": "is an error", "propagate": "makes the result of its row NaN"}


def names_of_targets(names: Sequence[str] | None, event_size: int) -> tuple[str, ...] | None:
    """Return d different names, or None."""
    if names is None:
        return None
    strings = () if isinstance(names, str) else tuple(map(str, names))
    if len(strings) != event_size or len(set(strings)) != event_size:
        raise ValueError(
            f"target_names={names!r} must be {event_size} different names, one per target."
        )
    return strings


def observations(y: Any, like: Array, names: Sequence[str] | None = None) -> Array:
    """Return finite observed values with exactly the shape of the predicted means `like`."""
    values = finite(in_order(y, names), "y")
    if values.shape != like.shape:
        raise ValueError(
            f"y has shape {values.shape}; it must have the shape of the predictions, {like.shape}."
        )
    return values


def in_order(y: Any, names: Sequence[str] | None) -> Any:
    """Return y with columns in the order of the targets, if it is a table that names them.

    Raises:
        ValueError: the column names differ from the target names.

    """
    labels = column_labels(y)
    if names is None or labels is None or labels == list(names):
        return y
    if sorted(labels) != sorted(names):
        raise ValueError(
            f"y has columns {labels}; the targets are {list(names)}. Rename the columns, or select "
            "those of the targets."
        )
    order = [labels.index(name) for name in names]
    # pandas by position, since labels need not be strings; Polars and Arrow by name.
    return y.iloc[:, order] if hasattr(y, "iloc") else y.select([labels[i] for i in order])


def column_labels(y: Any) -> list[str] | None:
    """Return the names of a table's columns; None for arrays, and if they are just numbered."""
    columns = getattr(y, "column_names", None)  # Arrow, whose `columns` are the columns themselves
    columns = getattr(y, "columns", None) if columns is None else columns
    if columns is None:
        return None
    labels = list(columns)
    return None if labels == list(range(len(labels))) else list(map(str, labels))


def checked_missing(missing: str, otherwise: str = "raise") -> str:
    """Check and return `missing`, the meaning of NaN in y: "marginalize" or `otherwise`.

    Args:
        missing: the user's value.
        otherwise: "raise" where arrays are evaluated and NaN can raise an error; "propagate"
            inside a graph, where NaN makes the result of its row NaN.

    Raises:
        ValueError: `missing` is neither.

    """
    if missing not in (otherwise, "marginalize"):
        raise ValueError(
            f"missing={missing!r} is not known. Expected {otherwise!r} (NaN in y "
            f"{_NAN[otherwise]}) or 'marginalize' (NaN in y means missing)."
        )
    return missing


def observed_targets(
    y: Any, missing: str, names: Sequence[str] | None = None
) -> tuple[Array, Array | None]:
    """Return y with 0 in place of NaN, and the mask of observed values, 1 or 0; None if complete.

    Args:
        y: (..., d); columns of a table are reordered as in `names`.
        missing: "raise" or "marginalize".
        names: names of the targets.

    Raises:
        ValueError: values are infinite, or NaN without `missing="marginalize"`; or `missing` is
            unknown.

    """
    y = in_order(y, names)
    if checked_missing(missing) == "raise":
        try:
            return finite(y, "y"), None
        except ValueError as error:
            hint = " If NaN means missing, pass missing='marginalize'."
            raise ValueError(f"{error}{hint}") from None
    values = np.array(as_numbers(y), dtype=np.float64)
    seen = ~np.isnan(values)
    values = finite(np.where(seen, values, 0.0), "y")
    return values, None if seen.all() else seen.astype(np.float64)


def target_names_of(names: Sequence[str] | None, event_size: int) -> list[str]:
    """Return the names, or "target 0", "target 1", … if there are none."""
    return list(names or (f"target {j}" for j in range(event_size)))
