"""How far coverage depends on x: the excess risk of the target coverage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["excess_risk"]

SEED = 42
"""Seed of the folds, as in `covmetrics`."""


def excess_risk(
    inside: np.ndarray, columns: Mapping[str, Any], level: float, classifier: Any, folds: int
) -> float:
    """Return how much better a classifier foretells which rows are inside than the level does.

    For the absolute loss: the mean of sign(p(x) − level) (inside − level) over rows that the
    classifier, p, has not seen.

    Args:
        inside: (n,), whether each row is inside its region.
        columns: name → (n,), inputs.
        level: nominal coverage of the regions.
        classifier: scikit-learn's classifier, which is cloned; None for boosted trees.
        folds: number of folds.

    """
    selection = require("sklearn.model_selection", "excess_risk")
    clone = require("sklearn.base", "excess_risk").clone
    if classifier is None:
        ensemble = require("sklearn.ensemble", "excess_risk")
        classifier = ensemble.HistGradientBoostingClassifier(
            learning_rate=0.05, max_leaf_nodes=15, early_stopping=True, random_state=0
        )
    x = np.stack([_numbers(column) for column in columns.values()], axis=1)
    found = []
    for train, test in selection.KFold(folds, shuffle=True, random_state=SEED).split(x):
        foretold = np.full(len(test), float(inside[train].mean()))
        if 0.0 < foretold[0] < 1.0:
            fitted = clone(classifier).fit(x[train], inside[train])
            foretold = fitted.predict_proba(x[test])[:, 1]
        found.append(np.mean(np.sign(foretold - level) * (inside[test] - level)))
    return float(np.mean(found))


def _numbers(column: Any) -> Array:
    """Return a column as numbers: names by their order."""
    values = np.asarray(column)
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    return np.unique(values.astype(str), return_inverse=True)[1].astype(np.float64)
