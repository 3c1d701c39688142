"""Batches of targets, from whatever users train on: arrays, data frames, datasets, generators."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_mvn._core.checks import as_numbers
from keras_mvn._core.types import Array

__all__ = ["MOST_ROWS", "target_batches"]

MOST_ROWS = 1 << 22
"""Rows (about four million) after which reading stops if the length of a dataset is unknown.

A mean is then known to a two-thousandth of the standard deviation.
"""

INFINITE = -1
"""TensorFlow's cardinality of a dataset that repeats."""


def target_batches(data: Any, event_size: int) -> Iterator[Array]:
    """Yield the targets of every batch, as float64 arrays (n, d).

    Raises:
        ValueError: data is infinite, or its targets are not (rows, d) or too large for float32.
        TypeError: data is neither an array nor a dataset.

    Warns:
        UserWarning: the length of data is unknown, and only its first `MOST_ROWS` rows were read.

    """
    rows = 0
    for batch in _elements(data):
        if isinstance(batch, (tuple, list)) and len(batch) > 1:
            batch = batch[1]  # (x, y) or (x, y, sample_weight)
        elif isinstance(batch, (tuple, list)):
            batch = batch[0]
        y = _to_numpy(batch)
        is_row = y.ndim == 1 and event_size > 1 and y.shape[0] == event_size
        if y.ndim == 1 and (event_size == 1 or (is_row and not _is_array(data))):
            y = y.reshape(-1, event_size)
        if y.ndim < 2 or y.shape[-1] != event_size:
            raise ValueError(
                f"adapt received targets of shape {y.shape}, but a head with event_size="
                f"{event_size} expects (rows, {event_size})."
            )
        if np.isinf(y).any() or (np.abs(y) > np.finfo(np.float32).max).any():
            raise ValueError(
                "adapt received targets that are infinite or beyond float32 (3.4e38). Mark "
                "missing values as NaN, and rescale targets with larger values."
            )
        yield y.reshape(-1, event_size)
        rows += y.size // event_size
        if rows >= MOST_ROWS and not _ends(data):
            warnings.warn(
                f"adapt read the first {rows} rows of a dataset of unknown length, and stopped "
                "there. To read others, shuffle it, or pass .take(steps) of it.",
                stacklevel=5,
            )
            return


def _elements(data: Any) -> Iterable[Any]:
    if isinstance(data, tuple) and any(map(_is_array, data)):
        raise ValueError(
            "adapt received a tuple of arrays. Pass only the targets, adapt(y_train), or a list of "
            "batches."
        )
    if isinstance(data, (list, tuple)) and not any(map(_holds_array, data)):
        return [np.asarray(data)]  # a table given as nested lists
    if _is_array(data):
        return [data]
    if _cardinality(data) == INFINITE:
        raise ValueError(
            "adapt received an infinite dataset, which it would read forever. Pass it as it is "
            "before .repeat(), or .take(steps) of it."
        )
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(
                "adapt received a PyDataset without a length, which it would read forever. Give it "
                "__len__, or pass the training targets as an array."
            )
        return (data[i] for i in range(data.num_batches))
    if isinstance(data, Iterable):
        return data
    raise TypeError(
        f"adapt received {type(data).__name__}. Expected an array, a tensor, or a dataset or "
        "iterable of batches."
    )


def _is_array(data: Any) -> bool:
    return (hasattr(data, "shape") and hasattr(data, "dtype")) or hasattr(data, "to_numpy")


def _holds_array(batch: Any) -> bool:
    """Return whether a list element is an array or (x, y) of arrays, not a row of numbers."""
    return _is_array(batch) or (isinstance(batch, (list, tuple)) and any(map(_is_array, batch)))


def _to_numpy(batch: Any) -> Array:
    if isinstance(batch, (Mapping, tuple, list)) and not _is_row(batch):
        keys = list(batch) if isinstance(batch, Mapping) else list(range(len(batch)))
        raise ValueError(
            f"adapt received targets of several outputs, {keys}. Pass those of this head, e.g. "
            f"head.adapt(dataset.map(lambda x, y: y[{keys[0]!r}]))."
        )
    try:
        return np.asarray(as_numbers(batch), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"adapt received a {type(batch).__name__} that is not a table of numbers: {error}"
        ) from None


def _is_row(batch: Any) -> bool:
    """Whether it is a row, or several, as nested lists of numbers."""
    return isinstance(batch, (tuple, list)) and not any(map(_is_array, batch))


def _cardinality(data: Any) -> int | None:
    """Return the number of batches of a TensorFlow dataset, or INFINITE; None if unknown."""
    count = getattr(data, "cardinality", None)
    return int(count()) if callable(count) else None


def _ends(data: Any) -> bool:
    """Whether data is known to end."""
    return hasattr(data, "__len__") or (_cardinality(data) or 0) > 0
