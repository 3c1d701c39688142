"""The rows of a fit as its networks get them: plain, or over another regressor's predictions."""

from __future__ import annotations

import functools
from typing import Any, final

import numpy as np

from keras_mvn._training.data import Material, Moments, Part, Table, moments
from keras_mvn._training.recipe import limits_around
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
        means = self._fitted(mean, None)
        assert means is not None
        return self._over(mean, means)

    def over_the_best(self, ends: float | None) -> tuple[str, Material] | None:
        """Return the name of the best of `mean`'s regressors, and the rows for networks over it.

        Args:
            ends: `time.monotonic()` up to which regressors may be fitted; None for no limit.

        Returns:
            The best of those for which there was time; None if there was none.

        """
        names = NAMED if self._cost_of_trees() <= MOST_OF_TREES else ("ridge",)
        fitted = {name: self._fitted(name, ends) for name in names}
        found = {name: means for name, means in fitted.items() if means is not None}
        if not found:
            return None
        best = min(found, key=lambda name: self._error(found[name]))
        return best, self._over(best, found[best])

    def _fitted(self, mean: Any, ends: float | None) -> Means | None:
        limits = limits_around(self._inputs) if isinstance(mean, str) else None
        return means_of(mean, self._data, self._divided, self._seed, ends, limits)

    @functools.cached_property
    def _inputs(self) -> Moments:
        """Moments and range of the table's inputs."""
        return moments(self._data.table(self._divided.split.train), self._fenced)

    def _over(self, mean: Any, means: Means) -> Material:
        """Return the rows for networks over these regressors, or plain ones for none."""
        self._means[_key(mean)] = means
        data = means.beside(self._data)
        training = data.table(self._divided.split.train)
        inputs = self._inputs if data is self._data else moments(training, self._fenced)
        return Material(self._parts(training, means), inputs)

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
