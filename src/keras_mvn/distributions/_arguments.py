"""Checks of arguments passed to distributions: measurements, error variances, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import explained_shapes, finite
from keras_mvn._core.targets import by_target, in_order, position, positions
from keras_mvn._core.types import Array

__all__ = ["Measurements", "labels", "mean_in_order", "ordered_by_labels"]


@final
@dataclass(frozen=True)
class Measurements:
    """Measured values of some targets, as `condition` takes them."""

    index: np.ndarray
    """Positions of the measured targets: (m,)."""
    values: Array
    """Measured values: (..., m)."""
    variance: Array
    """Variances of their errors, ≥ 0, infinite where a row has no measurement: (..., m)."""
    exact: np.ndarray
    """Whether each target was measured without an error: (m,), boolean."""
    left: np.ndarray
    """Positions of the targets that remain unknown."""

    @classmethod
    def read(
        cls,
        values: Mapping[Any, Any],
        variance: Mapping[Any, Any] | float | None,
        names: Sequence[str] | None,
        event_size: int,
        batch_shape: tuple[int, ...],
    ) -> Self:
        """Read the arguments of `condition`.

        Raises:
            ValueError: as for `Distribution.condition`.

        """
        given = by_target(values)
        if not given:
            raise ValueError(
                "condition: values must be a mapping from target to measured value, such as "
                f"{{0: 1.5}}; received {values!r}."
            )
        index = positions(list(given), names, event_size)
        measured = _per_row(list(given.values()), "values", batch_shape)
        noise, exact = _variances(variance, index, names, event_size, batch_shape)
        if exact.all() and len(index) == event_size:
            raise ValueError(
                "condition: values contains exact measurements of all targets, so nothing is left "
                "to predict. If the measurements have errors, pass variance=."
            )
        left = np.setdiff1d(np.arange(event_size), index[exact])
        return cls(index, measured, noise, exact, left)

    def observed(self, shape: tuple[int, ...]) -> Array | None:
        """The mask of what was measured in each row, (..., m), or None for everything."""
        seen = np.isfinite(self.variance)
        return None if seen.all() else np.broadcast_to(seen, shape).astype(np.float64)

    def count(self, shape: tuple[int, ...]) -> Any:
        """The number of measurements in each row."""
        mask = self.observed(shape)
        return len(self.index) if mask is None else mask.sum(axis=-1)


def _per_row(columns: list[Any], name: str, batch_shape: tuple[int, ...]) -> Array:
    """Stack numbers or (...) arrays, one for each of m targets, to (..., m)."""
    arrays = [finite(column, name) for column in columns]
    for array in arrays:
        if batch_shape and array.ndim > len(batch_shape):
            raise ValueError(
                f"{name} holds an array of shape {array.shape}; expected one number, or one "
                f"per distribution, of shape {batch_shape}."
            )
    with explained_shapes(name, [a.shape for a in arrays], batch_shape):
        np.broadcast_shapes(batch_shape, *(a.shape for a in arrays))
        return np.stack(np.broadcast_arrays(*arrays), axis=-1)


def _variances(
    variance: Any,
    index: np.ndarray,
    names: Sequence[str] | None,
    event_size: int,
    batch_shape: tuple[int, ...],
) -> tuple[Array, np.ndarray]:
    """Return the variances of measurement errors (..., m), and which targets are exact (m,)."""
    given = dict.fromkeys(index.tolist(), 0.0 if variance is None else variance)
    chosen = by_target(variance)
    if chosen is not None:
        given = dict.fromkeys(index.tolist(), 0.0)
        for target, value in chosen.items():
            at = position(target, names, event_size)
            if at not in given:
                raise ValueError(
                    f"variance contains target {target!r}, but values has no measurement of it."
                )
            given[at] = value
    columns = [np.array(value, dtype=np.float64) for value in given.values()]
    if not all((column >= 0).all() for column in columns):
        raise ValueError(f"variance={variance!r} must be ≥ 0; use inf where nothing was measured.")
    exact = np.array([column.size > 0 and not column.any() for column in columns])
    if any((c == 0).any() and not known for c, known in zip(columns, exact, strict=True)):
        raise ValueError(
            "variance is 0 in some rows and positive in others for the same target. Condition "
            "on these rows separately."
        )
    with explained_shapes("variance", [c.shape for c in columns], batch_shape):
        np.broadcast_shapes(batch_shape, *(c.shape for c in columns))
        return np.stack(np.broadcast_arrays(*columns), axis=-1), exact


def labels(value: Any) -> tuple[str, ...] | None:
    """Return the labels in a DataFrame's columns or a Series' index; None for other values."""
    index = getattr(value, "columns", None)
    if index is None and np.ndim(value) == 1:
        index = getattr(value, "index", None)
    if index is None or callable(index) or not all(isinstance(label, str) for label in index):
        return None
    return tuple(index)


def mean_in_order(mean: Any, names: Sequence[str] | None) -> Any:
    """Return the mean with its targets in the order of these names, if it is labeled.

    Args:
        mean: DataFrame or Series, labeled by its columns or index, or values without labels.
        names: names of the targets; None keeps the order.

    Raises:
        ValueError: the labels differ from the names.

    """
    found = labels(mean)
    if names is None or found is None or hasattr(mean, "columns"):
        return in_order(mean, names)
    if sorted(found) != sorted(names):
        raise ValueError(f"mean has the labels {list(found)}; expected {list(names)}.")
    return mean.loc[list(names)]


def ordered_by_labels(matrix: Any, name: str, names: Sequence[str] | None) -> Any:
    """Return a matrix with rows and columns in the order of these names, if it is labeled.

    Args:
        matrix: (d, d); only a DataFrame has labels.
        name: name of the argument, for error messages.
        names: names of the targets; None keeps the order of the columns.

    Raises:
        ValueError: rows and columns, or columns and names, are not the same targets; or a
            triangular factor is in another order, since reordering would change the matrix.

    """
    columns, rows = labels(matrix), getattr(matrix, "index", None)
    if columns is None or rows is None or not all(isinstance(label, str) for label in rows):
        return matrix
    wanted = list(columns if names is None else names)
    for axis, found in (("columns", list(columns)), ("rows", list(rows))):
        if sorted(found) != sorted(wanted):
            raise ValueError(
                f"{name} has the {axis} {found}; expected the targets {wanted}, in any order."
            )
    if name == "scale_tril" and not list(columns) == list(rows) == wanted:
        raise ValueError(
            f"scale_tril has the columns {list(columns)} and the rows {list(rows)}; the factor "
            f"depends on the order of the targets, which must be {wanted}. Pass covariance instead."
        )
    return matrix.loc[wanted, wanted]
