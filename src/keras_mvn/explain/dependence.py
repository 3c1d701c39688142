"""How what a model says depends on one input, on average over the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Array
from keras_mvn.explain._inputs import inputs_of, predict_of
from keras_mvn.explain.quantities import Quantity

__all__ = ["PartialDependence", "partial_dependence"]


@final
@dataclass(frozen=True, eq=False)
class PartialDependence:
    """Quantities as functions of one input; see `partial_dependence`."""

    feature: Any
    """The input."""
    quantities: tuple[str, ...]
    """Names of the quantities."""
    grid: np.ndarray
    """Values of the input: (values,)."""
    average: Array
    """Means over the rows: (quantities, values)."""
    individual: Array
    """The curve of each row: (quantities, rows, values)."""


def partial_dependence(
    model: Any,
    X: Any,  # noqa: N803
    feature: Any,
    quantities: Sequence[Quantity],
    grid_resolution: int = 20,
    percentiles: tuple[float, float] = (0.05, 0.95),
) -> PartialDependence:
    """Return the mean of each quantity if all rows had the same value of one input.

    The values are some of those in X: quantiles of numbers, all categories.

    Args:
        model: as in `permutation_importance`.
        X: inputs of some hundred rows.
        feature: the input, by name or position.
        quantities: what to explain.
        grid_resolution: maximum number of values; categories are not thinned.
        percentiles: the lowest and the highest of the quantiles.

    Raises:
        ValueError: there is no such input, or it has no values.

    Source: Friedman, "Greedy function approximation", Annals of Statistics 29 (2001); the curves of
    rows, Goldstein et al., "Peeking inside the black box", JCGS 24 (2015).

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> from keras_mvn.explain import Stddev
    >>> def predict(x):
    ...     return MultivariateNormal(x[:, :1], covariance=np.exp(2.0 * x[:, 1])[:, None, None])
    >>> x = np.linspace(-1.0, 1.0, 42).reshape(-1, 2)
    >>> found = partial_dependence(predict, x, 1, [Stddev(0)])
    >>> bool(np.allclose(found.average[0], np.exp(found.grid)))
    True

    """
    inputs, predict = inputs_of(X), predict_of(model)
    at = inputs.column(feature)
    most = whole(grid_resolution, "grid_resolution", "the number of values", 2)
    grid = _grid(inputs.values(at), most, percentiles)
    curves = []
    for value in grid:
        answer = predict(inputs.with_value(at, value))
        curves.append([one.of(answer) for one in quantities])
    individual = np.moveaxis(np.asarray(curves), 0, -1)
    names = tuple(one.name for one in quantities)
    return PartialDependence(inputs.names[at], names, grid, individual.mean(axis=1), individual)


def _grid(values: np.ndarray, most: int, percentiles: tuple[float, float]) -> np.ndarray:
    """Return values of a column, ascending: quantiles of numbers, all of anything else."""
    if values.dtype.kind in "biufmM":
        seen = values if values.dtype.kind in "biu" else values[~np.isnan(values)]
        different = np.unique(seen)
        if len(different) > most:
            levels = np.linspace(*percentiles, most)
            different = np.unique(np.quantile(seen, levels, method="nearest"))
    else:
        different = np.array(sorted({v for v in values.tolist() if v is not None and v == v}))
    if not len(different):
        raise ValueError("The input has no values in X.")
    return different
