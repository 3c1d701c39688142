"""Inputs of rows, whatever holds them: arrays, data frames, Arrow tables."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn.distributions import Distribution

__all__ = ["Inputs", "Predict", "inputs_of", "predict_of"]

Predict = Callable[[Any], Distribution]
"""Function from inputs of n rows to distributions of batch shape (n,)."""


def predict_of(model: Any) -> Predict:
    """Return the function that predicts: of a model that has `predict_distribution`, or itself."""
    found = getattr(model, "predict_distribution", model)
    if not callable(found):
        raise TypeError(
            "Expected a model with `predict_distribution`, such as a MultivariateNormalRegressor, "
            f"or a function from inputs to distributions; received {type(model).__name__}."
        )
    predict: Predict = found
    return predict


class Inputs(abc.ABC):
    """Rows of inputs, of which columns can be replaced."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.data)

    @property
    @abc.abstractmethod
    def names(self) -> list[Any]:
        """Names of the columns, or their numbers."""

    @abc.abstractmethod
    def take(self, rows: np.ndarray) -> Any:
        """Return these rows, as data."""

    @abc.abstractmethod
    def values(self, column: int) -> np.ndarray:
        """Return the values of a column: (n,)."""

    @abc.abstractmethod
    def mixed(self, rows: np.ndarray) -> Any:
        """Return data whose column j has the values of rows[j]: rows (columns, n)."""

    @abc.abstractmethod
    def with_value(self, column: int, value: Any) -> Any:
        """Return data in which every row has this value in a column."""

    def column(self, feature: Any) -> int:
        """Return the position of a column, given by name or position.

        Raises:
            ValueError: there is no such column.

        """
        names = self.names
        if feature in names:
            return names.index(feature)
        if isinstance(feature, int) and 0 <= feature < len(names):
            return feature
        raise ValueError(f"feature={feature!r}: expected one of {names}.")


@final
class _Array(Inputs):
    def __init__(self, data: Any) -> None:
        array = np.asarray(data)
        if array.ndim != 2:
            raise ValueError(f"X must have shape (rows, features); received {array.shape}.")
        super().__init__(array)

    @property
    def names(self) -> list[Any]:
        return list(range(self.data.shape[1]))

    def take(self, rows: np.ndarray) -> Any:
        return self.data[rows]

    def values(self, column: int) -> np.ndarray:
        return np.asarray(self.data[:, column])

    def mixed(self, rows: np.ndarray) -> Any:
        return self.data[rows, np.arange(len(rows))[:, None]].T

    def with_value(self, column: int, value: Any) -> Any:
        data = self.data.copy()
        data[:, column] = value
        return data


@final
class _Frame(Inputs):
    @property
    def names(self) -> list[Any]:
        return list(self.data.columns)

    def take(self, rows: np.ndarray) -> Any:
        return self.data.iloc[rows].reset_index(drop=True)

    def values(self, column: int) -> np.ndarray:
        return np.asarray(self.data.iloc[:, column])

    def mixed(self, rows: np.ndarray) -> Any:
        columns = [
            self.data.iloc[:, j].take(rows[j]).reset_index(drop=True) for j in range(len(rows))
        ]
        return require("pandas", "explanations for data frames").concat(columns, axis=1)

    def with_value(self, column: int, value: Any) -> Any:
        at = np.flatnonzero(self.values(column) == value)[:1]
        data = self.data.reset_index(drop=True).copy()
        name = self.names[column]
        data[name] = data[name].take(np.repeat(at, len(data))).set_axis(data.index)
        return data


@final
class _Arrow(Inputs):
    @property
    def names(self) -> list[Any]:
        return list(self.data.column_names)

    def take(self, rows: np.ndarray) -> Any:
        return self.data.take(rows)

    def values(self, column: int) -> np.ndarray:
        return np.asarray(self.data.column(column).to_numpy())

    def mixed(self, rows: np.ndarray) -> Any:
        arrow = require("pyarrow", "explanations for tables")
        columns = [self.data.column(j).take(arrow.array(rows[j])) for j in range(len(rows))]
        return arrow.table(columns, names=self.names)

    def with_value(self, column: int, value: Any) -> Any:
        at = np.flatnonzero(self.values(column) == value)[:1]
        repeated = self.data.column(column).take(np.repeat(at, len(self)))
        return self.data.set_column(column, self.names[column], repeated)


def inputs_of(data: Any) -> Inputs:
    """Return inputs of an array, a data frame or an Arrow table."""
    if hasattr(data, "column_names"):
        return _Arrow(data)
    return _Frame(data) if hasattr(data, "iloc") else _Array(data)
