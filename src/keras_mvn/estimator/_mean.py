"""Another regressor for the expected targets, over whose predictions the networks are trained."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import keras
import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn._training.member import Center, beside
from keras_mvn.estimator._cross_fitting import AUTO_FOLDS, folds_of
from keras_mvn.estimator._data import Data
from keras_mvn.estimator._division import Division
from keras_mvn.estimator._regressors import NAMED
from keras_mvn.layers import SoftClip

__all__ = ["Average", "Fitted", "Means", "is_frozen", "means_of", "regressor_for"]

AUTO = "auto"

PREDICTED_AT_ONCE = 10_000
"""Rows per call of a regressor: a Gaussian process forms its rows' covariances with all others."""

EXACT = 0.5
"""Share of a fixed regressor's predictions above which being exact means that it saw the rows."""


@final
class Fitted:
    """Regressors of the expected targets, fitted to some rows.

    Args:
        regressors: one for all targets, or one for each.
        names: names of the inputs, if the regressors want a data frame.
        limits: the range to which inputs are limited first, as those of networks are; None for
            regressors of the user.

    """

    def __init__(
        self,
        regressors: Sequence[Any],
        names: Sequence[str] | None = None,
        limits: SoftClip | None = None,
    ) -> None:
        self.regressors, self.names = list(regressors), names
        self.limits = limits

    @property
    def fits(self) -> Sequence[Fitted]:
        """What it averages: itself."""
        return [self]

    def predict(self, x: Any) -> Array:
        """Return the expected targets: (n, d).

        Raises:
            ValueError: a prediction is not finite, or has another shape.

        """
        parts = [
            self._predicted(x[start : start + PREDICTED_AT_ONCE])
            for start in range(0, max(len(x), 1), PREDICTED_AT_ONCE)
        ]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise ValueError(
                f"mean={self.regressors[0]!r} predicts {values[row].tolist()} for row {row}; "
                "expected finite numbers."
            )
        return values

    def _predicted(self, x: Any) -> Array:
        x = _named(x if self.limits is None else self.limits.limited(x), self.names)
        found = [np.asarray(_predict(one, x), np.float64) for one in self.regressors]
        columns = [part[:, None] if part.ndim == 1 else part for part in found]
        return np.concatenate(columns, axis=1)


def _named(x: Any, names: Sequence[str] | None) -> Any:
    """Return inputs as a data frame, if they have names."""
    if names is None:
        return x
    return require("pandas", "mean=").DataFrame(x, columns=list(names))


def _predict(regressor: Any, x: Any) -> Any:
    """Predict, without the progress bar that a Keras model draws."""
    if isinstance(getattr(regressor, "estimator", regressor), keras.Model):
        return regressor.predict(x, verbose=0)
    return regressor.predict(x)


@final
class Average:
    """The average of regressors fitted to different rows."""

    def __init__(self, fits: Sequence[Fitted]) -> None:
        self._fits = list(fits)

    @property
    def fits(self) -> Sequence[Fitted]:
        """What it averages."""
        return self._fits

    def predict(self, x: Any) -> Array:
        """Return the average of their predictions: (n, d)."""
        return np.mean([one.predict(x) for one in self._fits], axis=0)


class Means(NamedTuple):
    """Predictions of the expected targets for the rows of a fit, and for others; or none."""

    of_rows: Array | None = None
    """(n, d), of each row by regressors that have not seen it."""
    fits: Sequence[Fitted] = ()
    """The regressors of each fold, or one fixed one."""
    centers: Sequence[Center] = ()
    """What network i is over, at i modulo their number."""

    def beside(self, data: Data) -> Data:
        """Return the rows of the fit as the networks get them: m(x) beside x, and y − m(x)."""
        return data if self.of_rows is None else _beside(data, self.of_rows)

    def beside_others(self, data: Data) -> Data:
        """Return rows that no regressor has seen likewise."""
        return _beside(data, Average(self.fits).predict(data.x)) if self.fits else data


def _beside(data: Data, predicted: Array) -> Data:
    y = np.asarray(data.y, np.float64)
    return data._replace(x=beside(data.x, predicted), y=y - predicted, measured=y)


def is_frozen(mean: Any) -> bool:
    """Whether the user's regressor is not to be fitted."""
    return mean is not None and isinstance(mean, require("sklearn.frozen", "mean=").FrozenEstimator)


def regressor_for(mean: Any) -> Any:
    """Return the regressor of a value of the parameter, not fitted; None for None and "auto".

    Raises:
        ValueError: it is neither a known name nor a regressor.

    """
    if mean is None or (isinstance(mean, str) and mean == AUTO):
        return None
    if is_frozen(mean):
        return mean
    if isinstance(mean, str) and mean in NAMED:
        return NAMED[mean].unfitted()
    usable = all(callable(getattr(mean, name, None)) for name in ("fit", "predict"))
    if isinstance(mean, str | type) or not usable:
        raise ValueError(
            f"mean={mean!r} must be 'auto', None, one of {sorted(NAMED)}, or a regressor with fit "
            "and predict such as sklearn.linear_model.RidgeCV(); for one that is fitted already, "
            "sklearn.frozen.FrozenEstimator(model)."
        )
    return mean


def means_of(
    mean: Any,
    data: Data,
    divided: Division,
    seed: int,
    ends: float | None = None,
    limits: SoftClip | None = None,
) -> Means | None:
    """Fit a regressor to all but each fold in turn, and predict the rows of the fit.

    Rows of no fold are predicted by the average of all. The folds are those of cross-fitting, or
    5 random ones of the training rows.

    Args:
        mean: the estimator's parameter, already checked.
        data: the rows.
        divided: which of them train, stop and calibrate.
        seed: seed of what is random in the regressors and the folds.
        ends: `time.monotonic()` up to which there is time; None for no limit.
        limits: the range to which inputs of those with a name are limited.

    Returns:
        The regressors and their predictions; None if there is too little time.

    """
    regressor = regressor_for(mean)
    if regressor is None:
        return Means()
    if is_frozen(mean):
        return _as_they_are(mean, data, divided)
    train = divided.split.train
    folds = divided.folds or _folds(train, divided.labels, seed)
    names, limits = (None, limits) if isinstance(mean, str) else (data.inputs, None)
    fits: list[Fitted] = []
    began = time.monotonic()
    find = NAMED[mean].tuned if isinstance(mean, str) else _as_it_is
    tuned = functools.partial(find, _seeded(regressor, seed), seed=seed)
    for fold in folds:
        now = time.monotonic()
        if ends is not None and now + (now - began) / max(len(fits), 1) > ends:
            return None
        fits.append(_fitted(tuned, data, np.setdiff1d(train, fold), names, limits))
    average = Average(fits)
    of_rows = np.zeros((len(data.x), data.y.shape[1]))
    rest = np.setdiff1d(np.concatenate(list(divided.split)), train)
    centers: list[Center] = [*fits, average]
    for one, rows in zip(centers, [*folds, rest], strict=True):
        if len(rows):
            of_rows[rows] = _checked(one.predict(np.asarray(data.x[rows])), mean, data)
    return Means(of_rows, fits, list(fits) if divided.folds else [average])


def _as_it_is(regressor: Any, x: Any, y: Array, seed: int) -> Sequence[Any]:
    """Return a regressor of the user, which is not tuned."""
    return [regressor]


def _folds(train: np.ndarray, labels: np.ndarray | None, seed: int) -> list[np.ndarray]:
    units = len(train) if labels is None else len(np.unique(labels[train]))
    of_rows = None if labels is None else labels[train]
    return folds_of(min(AUTO_FOLDS, units), train, of_rows, seed)


def _as_they_are(mean: Any, data: Data, divided: Division) -> Means:
    """Predict by a regressor that is not fitted again."""
    names = getattr(mean, "feature_names_in_", None)
    fixed = Fitted([mean], None if names is None else [str(name) for name in names])
    of_rows = _checked(fixed.predict(data.x), mean, data)
    rows = divided.split.train
    y = np.asarray(data.y[rows], np.float64)
    seen = ~np.isnan(y)
    with np.errstate(invalid="ignore"):
        exact = (np.abs(y - of_rows[rows]) <= 1e-9 * np.abs(y))[seen].mean()
    if exact > EXACT:
        warnings.warn(
            f"mean={mean!r} predicts {exact:.0%} of the training targets exactly, so it has seen "
            "these rows, and its errors on new ones will be larger than what is learned here. "
            "Pass rows that it was not fitted to, or the unfitted regressor, which is then "
            "cross-fitted.",
            stacklevel=4,
        )
    return Means(of_rows, [fixed], [fixed])


def _checked(predicted: Array, mean: Any, data: Data) -> Array:
    if predicted.shape[1] != data.y.shape[1]:
        raise ValueError(
            f"mean={mean!r} predicts {predicted.shape[1]} targets; y has {data.y.shape[1]}."
        )
    return predicted


def _fitted(
    tuned: Callable[[Any, Array], Sequence[Any]],
    data: Data,
    rows: np.ndarray,
    names: Sequence[str] | None,
    limits: SoftClip | None,
) -> Fitted:
    """Fit clones to rows: one for all targets if it can take them, else one for each.

    Args:
        tuned: function from inputs and targets to a regressor for all targets, or to d.
        data: the rows.
        rows: those to fit to.
        names: names of the inputs, if the regressors want a data frame.
        limits: the range to which inputs are limited, or None.

    """
    x, y = np.asarray(data.x[rows]), np.asarray(data.y[rows], np.float64)
    x = _named(x if limits is None else limits.limited(x), names)
    weight = None if data.weight is None else data.weight[rows]
    seen = ~np.isnan(y)
    regressors = tuned(x, y)
    alike = len(regressors) == 1
    if y.shape[1] > 1 and seen.all() and alike and _takes_several(regressors[0]):
        return Fitted([_fit(regressors[0], x, y, weight)], names, limits)
    fits = []
    for j, mine in enumerate(seen.T):
        own = None if weight is None else weight[mine]
        fits.append(_fit(regressors[0 if alike else j], x[mine], y[mine, j], own))
    return Fitted(fits, names, limits)


def _fit(regressor: Any, x: Any, y: Array, weight: Array | None) -> Any:
    base = require("sklearn.base", "mean=")
    has_parameter = require("sklearn.utils.validation", "mean=").has_fit_parameter
    own = base.clone(regressor, safe=False)
    if weight is not None and has_parameter(own, "sample_weight"):
        own.fit(x, y, sample_weight=weight)
    else:
        own.fit(x, y)
    return own


def _takes_several(regressor: Any) -> bool:
    """Whether a regressor says that it takes several targets; those of other kinds get one."""
    try:
        tags = require("sklearn.utils", "mean=").get_tags(regressor)
    except (AttributeError, TypeError, ValueError):
        return False
    return bool(tags.target_tags.multi_output)


def _seeded(regressor: Any, seed: int) -> Any:
    """Return a copy whose random states are seeded, unless the user has done so."""
    if not hasattr(regressor, "get_params"):
        return regressor
    own = require("sklearn.base", "mean=").clone(regressor)
    given = own.get_params()
    states = [name for name in given if name.rpartition("__")[2] == "random_state"]
    return own.set_params(**{name: seed for name in states if given[name] is None})
