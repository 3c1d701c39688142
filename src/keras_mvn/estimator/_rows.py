"""Checks and splits of the estimator's rows, and errors of ridge regressions on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mvn._core.checks import unmasked
from keras_mvn._core.fences import described, fences
from keras_mvn._core.optional import require
from keras_mvn._core.targets import in_order, target_names_of
from keras_mvn._core.types import Array
from keras_mvn._training.data import PART, Split, Table, divide, input_range, sample
from keras_mvn.estimator._regressors import PENALTIES

__all__ = [
    "SMALLEST_CALIBRATION",
    "SMALLEST_TABLE",
    "OutlyingValuesWarning",
    "checked_weight",
    "given_split",
    "has_gaps",
    "names_of",
    "random_split",
    "require_observed",
    "require_unmasked",
    "ridge_residuals",
    "targets",
    "tell_isolated_inputs",
    "tell_two_values",
    "too_little_to_calibrate",
    "usable_rows",
    "without_isolated",
]

SMALLEST_TABLE = 4
"""Smallest number of rows: three for training and one for early stopping."""

SMALLEST_VALIDATION = 20
SMALLEST_CALIBRATION = 20
"""Smallest number of rows: a temperature is then accurate to 16 % (one target) or better."""

RIDGE_UP_TO = 2000
"""Number of training rows up to which ridge errors initialize the head (docs/choosing.md)."""

SMALLEST_START = 0.05
"""Smallest initial spread, in standard deviations of a target: below it, y starts far outside."""


def require_unmasked(x: Any) -> None:
    """Check that inputs have no masked entries, since networks take every input.

    Raises:
        ValueError: they have some.

    """
    if np.ma.is_masked(x):
        count = int(np.ma.getmaskarray(x).sum())
        raise ValueError(
            f"X is a masked array with {count} masked entries, but networks need every input. "
            "Impute them, e.g. by SimpleImputer().fit_transform(X.filled(np.nan)) from "
            "sklearn.impute."
        )


def names_of(y: Any) -> tuple[str, ...] | None:
    """Return the column names of a data frame or the name of a series; None for arrays."""
    if hasattr(y, "columns"):
        return tuple(map(str, getattr(y, "column_names", y.columns)))
    name = getattr(y, "name", None)
    return (str(name),) if name is not None and np.ndim(y) == 1 else None


def targets(y: Any, event_size: int, what: str, names: Sequence[str] | None = None) -> Array:
    """Return y as float64 of shape (n, d), NaN allowed; named columns in the order of `names`.

    Raises:
        ValueError: y is infinite or not numeric, or has the wrong number of targets or other names.

    """
    y = in_order(unmasked(y), names)
    check_array = require("sklearn.utils", "MultivariateNormalRegressor").check_array
    values = check_array(
        y, dtype=np.float64, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y"
    )
    values = values[:, None] if values.ndim == 1 else values
    if values.shape[1] != event_size:
        raise ValueError(f"{what} has {values.shape[1]} targets; fit saw {event_size}.")
    return np.asarray(values)


def _parts(rows: Any) -> list[Any]:
    """Return views of blocks of rows."""
    return [rows[start : start + PART] for start in range(0, len(rows), PART)]


def has_gaps(y: Any) -> bool:
    """Whether y has missing values."""
    return any(np.isnan(part).any() for part in _parts(y))


def usable_rows(y: Any, weight: Array | None) -> np.ndarray:
    """Return a mask of rows with an observed target and a positive weight: (n,)."""
    usable = np.concatenate([~np.isnan(part).all(axis=1) for part in _parts(y)])
    return usable if weight is None else usable & (weight > 0)


def require_observed(y: Any, train: np.ndarray, names: tuple[str, ...] | None) -> None:
    """Check that every target has at least two values in the training rows.

    Raises:
        ValueError: a target has fewer.

    """
    count = np.zeros(y.shape[1], dtype=int)
    for rows in _parts(train):
        count += (~np.isnan(y[rows])).sum(axis=0)
    few = np.flatnonzero(count < 2)
    if len(few):
        all_names = target_names_of(names, y.shape[1])
        raise ValueError(
            f"y has fewer than 2 values among the {len(train)} training rows for "
            f"{[all_names[j] for j in few]}, too few to learn from. Leave these targets out, or "
            "pass more rows."
        )


def random_split(
    usable: np.ndarray, shares: tuple[float, float], groups: Array | None, seed: int
) -> Split:
    """Split rows randomly into training, validation and calibration; keep groups together.

    Raises:
        ValueError: there are too few rows.

    """
    rows = np.flatnonzero(usable)
    if len(rows) < SMALLEST_TABLE:
        raise ValueError(
            f"y has {len(rows)} rows with a value and a positive weight, of "
            f"n_samples={len(usable)}; at least {SMALLEST_TABLE} are needed."
        )
    labels, smallest = None, (SMALLEST_VALIDATION, SMALLEST_CALIBRATION)
    if groups is not None:
        labels, smallest = groups[rows], (1, 1)
    split = divide(rows, shares, smallest, seed, labels)
    if len(split.train) < SMALLEST_TABLE - 1:
        raise ValueError(
            f"{len(split.train)} rows are left to train on, too few, because the groups are few "
            "and large. Pass split= instead."
        )
    return split


def given_split(split: Mapping[str, Any], usable: np.ndarray) -> Split:
    """Return the split that the user passed, without unusable rows.

    Raises:
        ValueError: a part is unknown, there are too few training rows, or a row is outside the
            table or used twice.

    """
    if not isinstance(split, Mapping):
        raise ValueError(
            "split must be a mapping from 'train', 'validation' and 'calibration' to row numbers; "
            f"received a {type(split).__name__}."
        )
    if not set(split) <= set(Split._fields) or "train" not in split:
        raise ValueError(
            f"split has the keys {sorted(split)}; it must have 'train', and may have 'validation' "
            "and 'calibration'."
        )
    parts = {name: _numbers(split.get(name, ()), name, usable) for name in Split._fields}
    together = np.concatenate(list(parts.values()))
    if len(np.unique(together)) < len(together):
        raise ValueError("split uses a row more than once; its parts must be disjoint.")
    if len(parts["train"]) < SMALLEST_TABLE - 1:
        raise ValueError(
            f"split['train'] has {len(parts['train'])} rows with a value and a positive weight; at "
            f"least {SMALLEST_TABLE - 1} are needed."
        )
    return Split(**parts)


def _numbers(given: Any, name: str, usable: np.ndarray) -> np.ndarray:
    """Return usable row numbers, ascending, from row numbers or a boolean mask."""
    rows = np.asarray(given)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= len(usable)):
        raise ValueError(f"split[{name!r}] has row numbers outside 0 … {len(usable) - 1}.")
    return np.sort(rows[usable[rows]])


def without_isolated(y: Any, split: Split, names: tuple[str, ...] | None) -> Any:
    """Return y with NaN for values far from all others, in training and validation rows.

    Calibration rows keep them: recalibration bounds what one row may do, and regions that are
    conformal have to count every row.

    Warns:
        OutlyingValuesWarning: there are such values; the message names them.

    """
    learned = np.sort(np.concatenate([split.train, split.validation]))
    found = fences(sample(y, learned)[1])
    if not found.any:
        return y
    kept = np.array(y, np.float64)
    known = target_names_of(names, y.shape[1])
    said = described(kept[learned], found, known, lambda i: f"row {learned[i]}")
    warnings.warn(
        f"These values of y are far from all others, and are treated as missing in training: "
        f"{said}. isolated='keep' leaves them as they are.",
        OutlyingValuesWarning,
        stacklevel=3,
    )
    kept[learned] = found.regular(kept[learned])
    return kept


def tell_isolated_inputs(x: Any, train: np.ndarray, estimator: Any) -> None:
    """Warn of inputs in training rows that are far from all others, which the network limits.

    Warns:
        OutlyingValuesWarning: there are such values; the message names them.

    """
    rows, values = sample(x, train)
    found = fences(values, codes=True)
    if found.any:
        given = getattr(estimator, "feature_names_in_", None)
        names = [f"x{i}" for i in range(x.shape[1])] if given is None else list(given)
        said = described(values, found, names, lambda i: f"row {rows[i]}")
        warnings.warn(
            f"These inputs are far from all others, and are limited to the range of the others: "
            f"{said}. isolated='keep' leaves them as they are.",
            OutlyingValuesWarning,
            stacklevel=3,
        )


def tell_two_values(y: Any, train: np.ndarray, names: tuple[str, ...] | None) -> None:
    """Warn of targets that have only two values, of which no density is a model.

    Warns:
        UserWarning: there are such targets; the message says what is reported instead.

    """
    values = sample(y, train)[1]
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    two = (low < high) & ((values == low) | (values == high) | np.isnan(values)).all(axis=0)
    if two.any():
        known = target_names_of(names, y.shape[1])
        said = [f"{known[j]} ({low[j]:.6g} or {high[j]:.6g})" for j in np.flatnonzero(two)]
        warnings.warn(
            f"These targets have only two values: {', '.join(said)}. A density is no model of a "
            "yes or no: their likelihoods can be made as high as one likes, so that candidates are "
            "compared, and the command's table and report score, by the probability of each "
            "value's cell. Of 0 and 1, the predicted mean is the probability of a 1; for such "
            "probabilities alone, use a classifier.",
            stacklevel=3,
        )


class OutlyingValuesWarning(UserWarning):
    """Single values of a table are far from all others."""


def checked_weight(sample_weight: Any, rows: Any) -> Array:
    """Return sample weights as float64: (n,).

    Raises:
        ValueError: one is negative, or none is positive.

    """
    validation = require("sklearn.utils.validation", "MultivariateNormalRegressor")
    weight: Array = validation._check_sample_weight(sample_weight, rows, dtype=np.float64)
    if (weight < 0).any() or not weight.any():
        raise ValueError("sample_weight must not be negative, and must have a positive entry.")
    return weight


def too_little_to_calibrate(
    y: Array, every_target: bool, target_names: Sequence[str] | None
) -> str | None:
    """Return the reason these calibration rows are insufficient; None if they suffice."""
    if len(y) < SMALLEST_CALIBRATION:
        return f"{len(y)} calibration rows are too few, at least {SMALLEST_CALIBRATION} are needed"
    unseen = np.flatnonzero(np.isnan(y).all(axis=0))
    if every_target and len(unseen):
        names = target_names_of(target_names, y.shape[1])
        return f"no calibration row has a value of {[names[i] for i in unseen]}"
    return None


def ridge_residuals(training: Table) -> Array | None:
    """Return out-of-fold errors of ridge regressions; None for large or degenerate tables.

    In the units of y, NaN where y is NaN.
    """
    if not 10 <= len(training) <= RIDGE_UP_TO:
        return None
    x, y = (np.concatenate(part) for part in zip(*training.parts(), strict=True))
    x = np.clip(x, *input_range(training))
    sd_x, sd_y = x.std(axis=0), np.nanstd(y, axis=0)
    seen = ~np.isnan(y)
    if not (sd_y > 0).all() or (seen.sum(axis=0) < 10).any():
        return None
    errors = _errors(
        (x - x.mean(axis=0)) / np.where(sd_x > 0, sd_x, 1.0),
        (y - np.nanmean(y, axis=0)) / sd_y,
        seen,
    )
    spread = np.nanstd(errors, axis=0)
    if not (spread > 0).all():
        return None
    return errors * np.maximum(1.0, SMALLEST_START / spread) * sd_y


def _errors(x: Array, y: Array, seen: np.ndarray) -> Array:
    linear = require("sklearn.linear_model", "MultivariateNormalRegressor")
    selection = require("sklearn.model_selection", "MultivariateNormalRegressor")
    ridge = linear.RidgeCV(alphas=PENALTIES)
    folds = selection.KFold(5, shuffle=True, random_state=0)
    errors = np.full(y.shape, np.nan)
    # One regression for all targets, or one for each if their observed rows differ.
    columns = [slice(None)] if seen.all() else [slice(j, j + 1) for j in range(y.shape[1])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from linear algebra: the errors only initialize training
        for column in columns:
            rows = seen[:, column].all(axis=1)
            target = y[rows, column]
            predicted = selection.cross_val_predict(ridge, x[rows], target, cv=folds)
            errors[rows, column] = target - predicted.reshape(target.shape)
    return errors
