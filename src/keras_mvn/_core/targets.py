"""Targets as users name and give them: by name or position, as columns of a table, with gaps."""

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


_NAN = {"raise": "is refused", "propagate": "makes the value of its row NaN"}


def names_of_targets(names: Sequence[str] | None, event_size: int) -> tuple[str, ...] | None:
    """d different names, or None."""
    if names is None:
        return None
    strings = () if isinstance(names, str) else tuple(map(str, names))
    if len(strings) != event_size or len(set(strings)) != event_size:
        raise ValueError(
            f"target_names={names!r} must be {event_size} different names, one per target."
        )
    return strings


def observations(y: Any, like: Array, names: Sequence[str] | None = None) -> Array:
    """What was observed for each of these predicted means: the same shape, nothing broadcast."""
    values = finite(in_order(y, names), "y")
    if values.shape != like.shape:
        raise ValueError(
            f"y has shape {values.shape}; the predictions are for {like.shape}, one row each."
        )
    return values


def in_order(y: Any, names: Sequence[str] | None) -> Any:
    """y with its columns in the order of the targets, if it is a table that names them.

    Raises:
        ValueError: it names others.

    """
    columns = getattr(y, "columns", None)
    if names is None or columns is None or not all(isinstance(c, str) for c in columns):
        return y
    if sorted(columns) != sorted(names):
        raise ValueError(f"y has columns {list(columns)}; the targets are {list(names)}.")
    return y[list(names)]


def checked_missing(missing: str, otherwise: str = "raise") -> str:
    """The meaning of NaN in y, checked: "marginalize", or what happens without it.

    Args:
        missing: as the user gave it.
        otherwise: "raise" where arrays are evaluated, and NaN can be refused; "propagate" inside
            a graph, where it makes the value of its row NaN.

    Raises:
        ValueError: `missing` is neither.

    """
    if missing not in (otherwise, "marginalize"):
        raise ValueError(
            f"missing={missing!r} is not known. Expected {otherwise!r} (NaN in y "
            f"{_NAN[otherwise]}) or 'marginalize' (NaN in y means not observed)."
        )
    return missing


def observed_targets(
    y: Any, missing: str, names: Sequence[str] | None = None
) -> tuple[Array, Array | None]:
    """y with zeros where it is NaN, and the mask (1 or 0) of what is not; None if nothing is.

    Args:
        y: (..., d); a table's columns are brought into the order of `names`.
        missing: "raise" or "marginalize".
        names: of the targets.

    Raises:
        ValueError: infinite values, NaN unless `missing="marginalize"`, or another `missing`.

    """
    y = in_order(y, names)
    if checked_missing(missing) == "raise":
        try:
            return finite(y, "y"), None
        except ValueError as error:
            hint = " NaN for what was not observed needs missing='marginalize'."
            raise ValueError(f"{error}{hint}") from None
    values = np.array(as_numbers(y), dtype=np.float64)
    seen = ~np.isnan(values)
    values = finite(np.where(seen, values, 0.0), "y")
    return values, None if seen.all() else seen.astype(np.float64)


def target_names_of(names: Sequence[str] | None, event_size: int) -> list[str]:
    """The names, or "target 0", "target 1", … where there are none."""
    return list(names or (f"target {j}" for j in range(event_size)))
