"""Shares of each input in what a model says of single rows: Shapley values, by `shap`."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.explain._inputs import inputs_of, predict_of
from keras_mvn.explain.quantities import Quantity

__all__ = ["shapley_values"]


def shapley_values(
    model: Any,
    X: Any,  # noqa: N803
    quantity: Quantity,
    background: Any,
    max_evals: int | str = "auto",
    random_state: int = 0,
) -> tuple[Array, float]:
    """Return what each input adds to a quantity of each row, and what it is without any.

    The values of a row sum to its quantity less the mean over the background, whose rows stand in
    for inputs that are left out. Estimated by the permutation explainer of the `shap` package,
    which is exact for models without interactions of more than two inputs.

    Args:
        model: as in `permutation_importance`.
        X: inputs of the rows to explain, (n, features): array, data frame or Arrow table.
        quantity: what to explain.
        background: inputs of some dozen other rows, with the same columns.
        max_evals: number of evaluations for each row, as in `shap.explainers.Permutation`.
        random_state: seed of the permutations.

    Returns:
        (values (n, features), base value), in the units of the quantity.

    Raises:
        ValueError: columns differ.
        ImportError: shap is not installed (`pip install "keras-mvn[explain]"`).

    Source: Lundberg & Lee, "A unified approach to interpreting model predictions", NeurIPS 2017.

    """
    shap = require("shap", "shapley_values")
    inputs, others, predict = inputs_of(X), inputs_of(background), predict_of(model)
    if inputs.names != others.names:
        raise ValueError(
            f"background has the columns {others.names}; expected those of X, {inputs.names}."
        )
    whole(len(others), "background", "rows to stand in for inputs that are left out", 1)
    together = inputs_of(_joined(inputs.data, others.data))
    n, columns = len(inputs), len(inputs.names)

    def evaluate(codes: Array) -> Array:
        """Evaluate rows whose values are those of these rows of `together`: (m, columns)."""
        rows = np.asarray(codes).round().astype(np.int64).T
        return quantity.of(predict(together.mixed(rows)))

    # Rows of codes in place of values, so that categories and dates are explained alike.
    own = np.tile(np.arange(n)[:, None], (1, columns)).astype(np.float64)
    masker = np.tile(n + np.arange(len(others))[:, None], (1, columns)).astype(np.float64)
    explainer = shap.explainers.Permutation(evaluate, masker, seed=random_state)
    if max_evals == "auto":
        max_evals = max(500, 2 * columns + 1)
    found = explainer(own, max_evals=max_evals, silent=True)
    return np.asarray(found.values), float(np.mean(found.base_values))


def _joined(first: Any, second: Any) -> Any:
    """Return the rows of two tables of the same kind."""
    if hasattr(first, "column_names"):
        return require("pyarrow", "shapley_values").concat_tables([first, second])
    if hasattr(first, "iloc"):
        return require("pandas", "shapley_values").concat([first, second], ignore_index=True)
    return np.concatenate([first, second])
