"""The rows of a fit as its networks get them: plain, or over another regressor's predictions."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from keras_mvn._training.data import Material, Part, Table, moments
from keras_mvn.estimator import _rows as rows_of
from keras_mvn.estimator._cross_fitting import parts_of
from keras_mvn.estimator._data import Data
from keras_mvn.estimator._division import Division
from keras_mvn.estimator._mean import NAMED, Means, means_of

__all__ = ["Materials"]


MOST_OF_TREES = 20.0
"""Cost up to which trees are tried: about 10 s on two cores."""


@final
class Materials:
    """Makes the rows of networks, and knows what else predicts the expected targets.

    Args:
        data: the rows, in the units of the network.
        divided: which of them train, stop and calibrate.
        given: rows for early stopping that the user passed, or None.
        fenced: whether single values that are far from all others count as the nearest of these.
        seed: seed of regressors and of their folds.

    """

    def __init__(
        self, data: Data, divided: Division, given: Data | None, fenced: bool, seed: int
    ) -> None:
        self._data, self._divided, self._given = data, divided, given
        self._fenced, self._seed = fenced, seed
        self._means: dict[Any, Means] = {}

    def first(self, mean: Any) -> Material:
        """Return the rows as the estimator's parameter says; plain ones for None and "auto"."""
        found = self.over(mean, None)
        assert found is not None
        return found

    def over(self, mean: Any, ends: float | None) -> Material | None:
        """Return the rows for networks over a regressor.

        Args:
            mean: the estimator's parameter, already checked.
            ends: `time.monotonic()` up to which the regressor may be fitted; None for no limit.

        Returns:
            The rows; None if there is too little time.

        """
        means = means_of(mean, self._data, self._divided, self._seed, ends, self._fenced)
        if means is None:
            return None
        self._means[_key(mean)] = means
        data, rows = means.beside(self._data), self._divided.split
        training = data.table(rows.train)
        return Material(self._parts(training, means), moments(training, self._fenced))

    def over_the_best(self, ends: float | None) -> tuple[str, Material] | None:
        """Return the name of the best of `mean`'s regressors, and the rows for networks over it.

        Args:
            ends: `time.monotonic()` up to which regressors may be fitted; None for no limit.

        Returns:
            The best of those for which there was time; None if there was none.

        """
        found = {}
        for name in NAMED if self._cost_of_trees() <= MOST_OF_TREES else ("ridge",):
            material = self.over(name, ends)
            if material is not None:
                found[name] = material
        if not found:
            return None
        best = min(found, key=lambda name: self._error(self._means[name]))
        return best, found[best]

    def _cost_of_trees(self) -> float:
        """Return what a model of trees for each target costs: twice the seconds of five folds."""
        rows, features = len(self._divided.split.train), self._data.x.shape[1]
        return float(self._data.y.shape[1] * (1.0 + rows * features / 20_000))

    def _error(self, means: Means) -> float:
        """Return the mean absolute error in standard deviations, which no single row decides."""
        rows = self._divided.split.train
        assert means.of_rows is not None
        y = np.asarray(self._data.y[rows], np.float64)
        spread = np.nanstd(y, axis=0)
        error = np.abs(y - means.of_rows[rows]) / np.where(spread > 0.0, spread, 1.0)
        return float(np.nanmean(error))

    def means(self, mean: Any) -> Means:
        """Return the regressors that were fitted for such networks."""
        return self._means[_key(mean)]

    def _parts(self, training: Table, means: Means) -> list[Part]:
        if self._divided.folds:
            return parts_of(training, self._divided.folds, rows_of.ridge_residuals)
        rows = self._divided.split.validation
        validation = training.of(rows) if len(rows) else None
        if self._given is not None:
            given = means.beside_others(self._given)
            validation = given.table(np.arange(len(given.y)))
        return [Part(training, validation, validation, rows_of.ridge_residuals(training))]


def _key(mean: Any) -> Any:
    return mean if isinstance(mean, str) else id(mean)
