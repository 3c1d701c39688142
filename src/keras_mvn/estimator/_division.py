"""Which rows of a fit train, stop training, and calibrate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._training.data import Split
from keras_mvn.distributions._transforms import TargetTransform
from keras_mvn.estimator import _rows as rows_of
from keras_mvn.estimator._calibration import calibration_kind
from keras_mvn.estimator._cross_fitting import crosses, folds_of
from keras_mvn.estimator._data import Data

__all__ = ["Division", "division", "given_validation"]


class Division(NamedTuple):
    """The parts of the table, and the folds of the training rows."""

    split: Split
    folds: list[np.ndarray]
    """Row numbers of each fold; none without cross-fitting."""
    labels: np.ndarray | None = None
    """Labels of the groups of all rows, or None."""

    @property
    def calibrating(self) -> list[np.ndarray]:
        """Rows that calibrate: network i has not seen those of entry i modulo their number."""
        conformal = len(self.split.calibration) > 0
        return self.folds if self.folds and not conformal else [self.split.calibration]


def division(
    estimator: Any,
    data: Data,
    seed: int,
    groups: Any,
    split: Mapping[str, Any] | None,
    validated: bool,
) -> Division:
    """Divide the rows of a table as the estimator's parameters and the arguments of `fit` say.

    Args:
        estimator: the estimator, whose parameters have been checked.
        data: the arguments of `fit`.
        seed: seed of random divisions.
        groups: as in `fit`.
        split: as in `fit`.
        validated: whether the user has passed rows for early stopping.

    Raises:
        ValueError: arguments contradict each other, or there are too few rows.

    """
    usable = rows_of.usable_rows(data.y, data.weight)
    parted = split is not None or validated or not estimator.validation_fraction
    labels = None if groups is None else _labels(groups, usable)
    crossed = crosses(estimator.cv, usable, labels, parted)
    if crossed and validated:
        raise ValueError(
            f"cv={estimator.cv!r} cannot be combined with validation_data: each fold stops the "
            "training of the networks that learn from the others. Pass only one of them."
        )
    if split is None:
        shares = _shares(estimator, validated, crossed)
        parts = rows_of.random_split(usable, shares, labels, seed)
    else:
        if labels is not None and not crossed:
            raise ValueError("split cannot be combined with groups. Pass only one of them.")
        parts = rows_of.given_split(split, usable)
        if len(parts.validation) and (validated or crossed):
            other = f"cv={estimator.cv!r}" if crossed else "validation_data"
            raise ValueError(
                f"split['validation'] cannot be combined with {other}. Pass only one of them."
            )
    rows_of.require_observed(data.y, parts.train, data.names)
    if not crossed:
        return Division(parts, [], labels)
    of_rows = None if labels is None else labels[parts.train]
    folds = folds_of(estimator.cv, parts.train, of_rows, seed)
    for i, fold in enumerate(folds):
        try:
            rows_of.require_observed(data.y, np.setdiff1d(parts.train, fold), data.names)
        except ValueError as error:
            raise ValueError(
                f"Without fold {i} of {len(folds)} (cv={estimator.cv!r}), {error} Or pass cv=None, "
                "or other folds."
            ) from error
    return Division(parts, folds, labels)


def _labels(groups: Any, usable: np.ndarray) -> np.ndarray:
    labels = np.asarray(groups)
    if labels.shape != usable.shape:
        raise ValueError(
            f"groups has shape {labels.shape}; it must have one label for each of the "
            f"{len(usable)} rows."
        )
    try:
        codes: np.ndarray = np.unique(labels, return_inverse=True)[1]
    except TypeError as error:
        raise ValueError(
            f"groups has labels that cannot be compared: {error}. Use strings, or numbers, alone."
        ) from error
    return codes


def _shares(estimator: Any, validated: bool, crossed: bool) -> tuple[float, float]:
    """Return the fractions of rows for early stopping and calibration alone."""
    kind = calibration_kind(estimator.calibration)
    # With cross-fitting, the rows that calibrate are all; a guarantee needs rows of its own.
    calibrates = kind is not None and (kind.conformal or not crossed)
    return (
        0.0 if validated or crossed else float(estimator.validation_fraction),
        float(estimator.calibration_fraction) if calibrates else 0.0,
    )


def given_validation(
    validation_data: Any,
    data: Data,
    transform: TargetTransform | None,
    checked: Callable[[Any], Any],
) -> Data:
    """Return the rows for early stopping that the user passed.

    Args:
        validation_data: as in `fit`.
        data: the other arguments of `fit`.
        transform: the transform of the targets, or None.
        checked: function that checks and converts inputs.

    Raises:
        ValueError: it is no pair (X, y) of as many rows, or no target was observed.

    """
    if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
        raise ValueError("validation_data must be a pair (X, y).")
    x = checked(validation_data[0])
    y = rows_of.targets(validation_data[1], data.y.shape[1], "y of validation_data", data.names)
    require("sklearn.utils.validation", "fit").check_consistent_length(x, y)
    given = Data(x, y, None, False, data.names).in_units_of(transform)
    rows = np.flatnonzero(rows_of.usable_rows(given.y, None))
    if not len(rows):
        raise ValueError("validation_data has no row in which a target was observed.")
    return given._replace(x=given.x[rows], y=given.y[rows])
