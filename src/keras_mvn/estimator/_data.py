"""The validated arguments of the estimator's `fit`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn._training.data import Table
from keras_mvn.distributions._transforms import TargetTransform

__all__ = ["Data"]


class Data(NamedTuple):
    """Validated arguments of `fit`."""

    x: Any
    """(n, features)"""
    y: Any
    """(n, d), NaN where not observed."""
    weight: Array | None
    one_dimensional: bool
    names: tuple[str, ...] | None
    inputs: tuple[str, ...] | None = None
    """Names of the inputs, if they came as a data frame."""
    measured: Any = None
    """(n, d), the targets as they were measured, if y is what another regressor leaves of them."""

    def in_units_of(self, transform: TargetTransform | None) -> Data:
        """Return a copy with T(y) in place of y."""
        if transform is None:
            return self
        transform.check(self.y, target_names_of(self.names, self.y.shape[1]))
        return self._replace(y=transform.forward(np.asarray(self.y, np.float64)))

    def table(self, rows: np.ndarray) -> Table:
        """Return some rows, with weights of mean 1 among them, so that they keep the step size."""
        weight = None if self.weight is None else self.weight / self.weight[rows].mean()
        return Table(self.x, self.y, weight, rows, self.measured)
