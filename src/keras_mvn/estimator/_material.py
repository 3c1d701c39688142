"""The rows of a fit as its networks get them: plain, or over another regressor's predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn._training.data import Material, Moments, Part, Table, moments
from keras_mvn._training.member import Center
from keras_mvn._training.recipe import limits_around
from keras_mvn.estimator._cross_fitting import parts_of
from keras_mvn.estimator._data import Data
from keras_mvn.estimator._division import Division
from keras_mvn.estimator._mean import Fitted, Means, means_of
from keras_mvn.estimator._regressors import NAMED
from keras_mvn.estimator._rows import ridge_residuals

__all__ = ["Materials"]

Residuals = Callable[[Table], Array | None]
"""Errors of another model on training rows, or None."""

MOST_SECONDS = 10.0
"""Time on one core above which a regressor is not tried."""


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

    def others(self, ends: float | None) -> dict[str, Material]:
        """Fit what `mean` knows by name, and return the rows beside the predictions of each.

        They have no residuals, from which networks start: `over` has.

        Args:
            ends: `time.monotonic()` up to which regressors may be fitted; None for no limit.

        Returns:
            Those for which there was time.

        """
        rows, features = len(self._divided.split.train), self._data.x.shape[1]
        found = {}
        for name, one in NAMED.items():
            if one.seconds(rows, features, self._data.y.shape[1]) <= MOST_SECONDS:
                means = self._fitted(name, ends)
                if means is not None:
                    found[name] = self._over(name, means, _no_residuals)
        return found

    def over(self, name: str) -> Material:
        """Return the rows for networks over a regressor that `others` has fitted."""
        return self._over(name, self._means[name])

    def _fitted(self, mean: Any, ends: float | None) -> Means | None:
        limits = limits_around(self._inputs) if isinstance(mean, str) else None
        return means_of(mean, self._data, self._divided, self._seed, ends, limits)

    @functools.cached_property
    def _inputs(self) -> Moments:
        """Moments and range of the table's inputs."""
        return moments(self._data.table(self._divided.split.train), self._fenced)

    def _over(self, mean: Any, means: Means, residuals: Residuals = ridge_residuals) -> Material:
        """Return the rows for networks over these regressors, or plain ones for none."""
        self._means[_key(mean)] = means
        data = means.beside(self._data)
        training = data.table(self._divided.split.train)
        inputs = self._inputs if data is self._data else moments(training, self._fenced)
        return Material(self._parts(training, means, residuals), inputs)

    def of_networks(
        self, mean: Any, names: Sequence[str | None]
    ) -> tuple[list[Center | None], list[Fitted]]:
        """Return what each network is over, None for nothing, and all regressors among these.

        Args:
            mean: the estimator's parameter.
            names: of what each network is over, None for what the parameter says.

        """
        means = [self._means[_key(name or mean)] for name in names]
        centers = [
            one.centers[i % len(one.centers)] if one.centers else None
            for i, one in enumerate(means)
        ]
        fits = {id(one): one.fits for one in means}
        return centers, [fit for some in fits.values() for fit in some]

    def _parts(self, training: Table, means: Means, residuals: Residuals) -> list[Part]:
        if self._divided.folds:
            return parts_of(training, self._divided.folds, residuals)
        rows = self._divided.split.validation
        validation = training.of(rows) if len(rows) else None
        if self._given is not None:
            given = means.beside_others(self._given)
            validation = given.table(np.arange(len(given.y)))
        return [Part(training, validation, validation, residuals(training))]


def _no_residuals(table: Table) -> Array | None:
    return None


def _key(mean: Any) -> Any:
    return mean if isinstance(mean, str) else id(mean)
