"""Tables as the estimator gets them: checked, divided, and a linear model's errors on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn._training.data import PART, Split, Table, divide

__all__ = [
    "SMALLEST_CALIBRATION",
    "SMALLEST_TABLE",
    "given_split",
    "has_gaps",
    "names_of",
    "random_split",
    "require_observed",
    "ridge_residuals",
    "targets",
    "too_little_to_calibrate",
    "usable_rows",
]

SMALLEST_TABLE = 4
"""Rows: three to train on and one to stop by."""

SMALLEST_VALIDATION = 20
SMALLEST_CALIBRATION = 20
"""Rows: a temperature is then known to 16 % (one target) or better."""

RIDGE_UP_TO = 2000
"""Training rows up to which the covariance starts at a ridge regression's (docs/choosing.md)."""

SMALLEST_START = 0.05
"""Of the standard deviation of a target: where ridge errors are smaller, y starts far outside."""


def names_of(y: Any) -> tuple[str, ...] | None:
    """Of a data frame's columns, or a series."""
    if hasattr(y, "columns"):
        return tuple(map(str, y.columns))
    name = getattr(y, "name", None)
    return (str(name),) if name is not None and np.ndim(y) == 1 else None


def targets(y: Any, event_size: int, what: str) -> Array:
    """(n, d) numbers in float64, NaN allowed.

    Raises:
        ValueError: infinite values, text, or another number of targets.

    """
    check_array = require("sklearn.utils", "MultivariateNormalRegressor").check_array
    values = check_array(
        y, dtype=np.float64, ensure_2d=False, ensure_all_finite="allow-nan", input_name="y"
    )
    values = values[:, None] if values.ndim == 1 else values
    if values.shape[1] != event_size:
        raise ValueError(f"{what} has {values.shape[1]} targets; fit saw {event_size}.")
    return np.asarray(values)


def _parts(rows: Any) -> list[Any]:
    """Views, some rows at a time."""
    return [rows[start : start + PART] for start in range(0, len(rows), PART)]


def has_gaps(y: Any) -> bool:
    """Whether some y was not observed."""
    return any(np.isnan(part).any() for part in _parts(y))


def usable_rows(y: Any, weight: Array | None) -> np.ndarray:
    """Rows that say something: (n,), boolean."""
    usable = np.concatenate([~np.isnan(part).all(axis=1) for part in _parts(y)])
    return usable if weight is None else usable & (weight > 0)


def require_observed(y: Any, train: np.ndarray, names: tuple[str, ...] | None) -> None:
    """Every target needs values to learn from.

    Raises:
        ValueError: one has fewer than two among the training rows.

    """
    count = np.zeros(y.shape[1], dtype=int)
    for rows in _parts(train):
        count += (~np.isnan(y[rows])).sum(axis=0)
    few = np.flatnonzero(count < 2)
    if len(few):
        all_names = target_names_of(names, y.shape[1])
        raise ValueError(
            f"y has fewer than 2 values among the {len(train)} training rows for "
            f"{[all_names[j] for j in few]}: nothing can be learnt of them. Leave these targets "
            "out, or pass more rows."
        )


def random_split(usable: np.ndarray, shares: tuple[float, float], groups: Any, seed: int) -> Split:
    """Rows at random into the three parts; groups stay together.

    Raises:
        ValueError: too few rows, or groups of another number of rows.

    """
    rows = np.flatnonzero(usable)
    if len(rows) < SMALLEST_TABLE:
        raise ValueError(
            f"y has {len(rows)} rows with a value and a positive weight, of "
            f"n_samples={len(usable)}; at least {SMALLEST_TABLE} are needed."
        )
    labels, smallest = None, (SMALLEST_VALIDATION, SMALLEST_CALIBRATION)
    if groups is not None:
        labels = np.asarray(groups)
        if labels.shape != usable.shape:
            raise ValueError(
                f"groups has shape {labels.shape}; it must have a label for each of the "
                f"{len(usable)} rows."
            )
        labels, smallest = labels[rows], (1, 1)
    split = divide(rows, shares, smallest, seed, labels)
    if len(split.train) < SMALLEST_TABLE - 1:
        raise ValueError(
            f"{len(split.train)} rows are left to train on, too few: the groups are few and large. "
            "Pass split= instead."
        )
    return split


def given_split(split: Mapping[str, Any], usable: np.ndarray) -> Split:
    """The parts that the user named, without rows that say nothing.

    Raises:
        ValueError: unknown parts, none to train on, rows outside the table or in two parts.

    """
    if not set(split) <= set(Split._fields) or "train" not in split:
        raise ValueError(
            f"split has the parts {sorted(split)}; it must have 'train', and may have 'validation' "
            "and 'calibration'."
        )
    parts = {name: _numbers(split.get(name, ()), name, usable) for name in Split._fields}
    together = np.concatenate(list(parts.values()))
    if len(np.unique(together)) < len(together):
        raise ValueError("split uses a row more than once.")
    if len(parts["train"]) < SMALLEST_TABLE - 1:
        raise ValueError(
            f"split['train'] has {len(parts['train'])} rows with a value and a positive weight; at "
            f"least {SMALLEST_TABLE - 1} are needed."
        )
    return Split(**parts)


def _numbers(given: Any, name: str, usable: np.ndarray) -> np.ndarray:
    """Row numbers, ascending, of numbers or a mask."""
    rows = np.asarray(given)
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= len(usable)):
        raise ValueError(f"split[{name!r}] has row numbers outside 0 … {len(usable) - 1}.")
    return np.sort(rows[usable[rows]])


def too_little_to_calibrate(
    y: Array, every_target: bool, target_names: Sequence[str] | None
) -> str | None:
    """Why these calibration rows don't do; None if they do."""
    if len(y) < SMALLEST_CALIBRATION:
        return f"{len(y)} rows for it are too few, it takes {SMALLEST_CALIBRATION}"
    unseen = np.flatnonzero(np.isnan(y).all(axis=0))
    if every_target and len(unseen):
        names = target_names_of(target_names, y.shape[1])
        return f"none of the rows for it has a value of {[names[i] for i in unseen]}"
    return None


def ridge_residuals(training: Table) -> Array | None:
    """Errors of ridge regressions on rows they have not seen; None for large or odd tables.

    In the units of y, NaN where y is.
    """
    if not 10 <= len(training) <= RIDGE_UP_TO:
        return None
    x, y = (np.concatenate(part) for part in zip(*training.parts(), strict=True))
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
    ridge = linear.RidgeCV(alphas=np.logspace(-2, 4, 13))
    folds = selection.KFold(5, shuffle=True, random_state=0)
    errors = np.full(y.shape, np.nan)
    # One regression for all targets, or one for each where their rows differ.
    columns = [slice(None)] if seen.all() else [slice(j, j + 1) for j in range(y.shape[1])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of linear algebra: this is only where training starts
        for column in columns:
            rows = seen[:, column].all(axis=1)
            target = y[rows, column]
            predicted = selection.cross_val_predict(ridge, x[rows], target, cv=folds)
            errors[rows, column] = target - predicted.reshape(target.shape)
    return errors
