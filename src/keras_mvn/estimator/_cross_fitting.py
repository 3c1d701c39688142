"""Cross-fitting: every row trains most networks, and stops, selects and calibrates the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn._training.data import Part, Table
from keras_mvn._training.member import Member, predict_distribution
from keras_mvn.distributions import Distribution
from keras_mvn.tables.splitting import dealt

__all__ = [
    "AUTO_FOLDS",
    "SMALLEST_FOLDS",
    "as_of_the_ensemble",
    "auto_up_to",
    "crosses",
    "folds_of",
    "parts_of",
]

AUTO_FOLDS = 5

AUTO_FROM = 20
"""Smallest number of rows for which cv="auto" means cross-fitting."""


def auto_up_to() -> int:
    """Return the largest number of rows for which cv="auto" means cross-fitting.

    It is worth its time where the folds are trained in one pass (docs/estimator.md has the
    measurement); in turn, they take five times as long, which is too long for thousands of rows.
    """
    return 10_000 if keras.backend.backend() == "jax" else 2000


def crosses(cv: Any, usable: np.ndarray, groups: Array | None, parted: bool) -> bool:
    """Whether to cross-fit.

    Args:
        cv: the estimator's parameter, already checked.
        usable: (n,) mask of the rows with a target.
        groups: (n,) labels, or None.
        parted: whether the user has said which rows stop training, or that none do.

    """
    if not isinstance(cv, str):
        return cv is not None
    few = groups is not None and len(np.unique(groups[usable])) < AUTO_FOLDS
    return not parted and not few and AUTO_FROM <= int(np.count_nonzero(usable)) <= auto_up_to()


def folds_of(cv: Any, rows: np.ndarray, groups: Array | None, seed: int) -> list[np.ndarray]:
    """Divide rows into folds; the rows of a group, if there are groups, stay together.

    Args:
        cv: "auto", a number of folds, or a splitter of scikit-learn.
        rows: numbers of the rows.
        groups: (len(rows),) labels, or None.
        seed: seed of random folds.

    Raises:
        ValueError: there are fewer than three folds, or fewer rows or groups than folds, or the
            folds of the splitter do not contain every row once.

    """
    if isinstance(cv, str | int):
        found = _random_folds(AUTO_FOLDS if isinstance(cv, str) else cv, len(rows), groups, seed)
    else:
        found = _folds_by(cv, len(rows), groups)
        together = np.sort(np.concatenate(found))
        if not np.array_equal(together, np.arange(len(rows))):
            raise ValueError(
                f"The folds of cv={cv!r} must contain each of the {len(rows)} rows once, since "
                "predictions for rows that a network has not seen calibrate it. Use, for example, "
                "KFold(5) or GroupKFold(5)."
            )
    if len(found) < SMALLEST_FOLDS:
        raise ValueError(f"cv={cv!r} makes {len(found)} folds; at least {SMALLEST_FOLDS} needed.")
    return [rows[fold] for fold in found]


def _folds_by(splitter: Any, rows: int, groups: Array | None) -> list[np.ndarray]:
    check_cv = require("sklearn.model_selection", "cv").check_cv
    try:
        splits = list(check_cv(splitter).split(np.zeros((rows, 1)), None, groups))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"cv={splitter!r} cannot divide {rows} rows: {error} It gets groups, but no y, which "
            "has several columns of numbers. Use, for example, KFold(5) or GroupKFold(5)."
        ) from error
    return [np.sort(np.asarray(test)) for _, test in splits]


SMALLEST_FOLDS = 3
"""The spread of the networks that have seen a row needs two of them."""


def _random_folds(k: int, rows: int, groups: Array | None, seed: int) -> list[np.ndarray]:
    """Return k folds of positions: of equal size, or of as equal ones as groups allow."""
    rng = np.random.default_rng([seed, 3])
    if groups is None:
        if rows < k:
            raise ValueError(f"cv={k} needs at least as many rows; there are {rows}.")
        return [np.sort(fold) for fold in np.array_split(rng.permutation(rows), k)]
    labels = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(labels)
    if len(sizes) < k:
        raise ValueError(f"cv={k} needs at least as many groups; there are {len(sizes)}.")
    order = rng.permutation(len(sizes))
    largest_first = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, _ = dealt(largest_first, sizes, np.ones(k))
    return [np.flatnonzero(fold_of[labels] == fold) for fold in range(k)]


MOST_TRIMMED = 0.15
"""Share of the smallest fold by which others may be larger for networks to have equal sizes."""


def parts_of(
    table: Table, folds: Sequence[np.ndarray], residuals: Callable[[Table], Array | None]
) -> list[Part]:
    """Return the rows of each network: all but a fold, which stops its training.

    If folds differ by one row, as random ones do, a network has one row less for training or for
    stopping, so that all have equally many, and can be trained in one pass. On JAX, where it can,
    those of groups may differ by more, and a network then has up to 4 % fewer rows.

    Args:
        table: all rows.
        folds: row numbers of each fold.
        residuals: function that returns errors of another model on training rows, or None.

    """
    sizes = [len(fold) for fold in folds]
    most = MOST_TRIMMED * min(sizes) if keras.backend.backend() == "jax" else 1.0
    alike = max(sizes) - min(sizes) <= max(most, 1.0)
    stopping = min(sizes) if alike else None
    training = len(table) - max(sizes) if alike else None
    parts = []
    for i, fold in enumerate(folds):
        others = np.flatnonzero(~np.isin(table.rows, fold))
        # Not the same row for every network.
        others = np.sort(np.roll(others, i)[:training])
        learned = table.of(table.rows[others])
        stop = table.of(fold[:stopping])
        parts.append(Part(learned, stop, table.of(fold), residuals(learned)))
    return parts


def as_of_the_ensemble(
    members: Sequence[Member], x: Any, folds: Sequence[np.ndarray]
) -> Distribution:
    """Predict each row by the networks that have not seen it, as uncertain as all together are.

    What is delivered, the mixture of all networks, errs less than a network on its own, and is
    wider: by B, the covariance of the networks' means, in both cases. So a row's own networks are
    widened by 2 B before they are compared with y: a factor that makes the average of (y − μ)(y −
    μ)ᵀ equal to Σ + 2 B also makes the average squared error of the mixture, smaller by B, equal to
    its covariance Σ + B. B is the spread of the networks that have seen the row, with the divisor
    of an unbiased estimate.

    Source: for the errors, Krogh & Vedelsby, "Neural network ensembles, cross validation, and
    active learning", NIPS 1994.

    Args:
        members: the members; network i has not seen the rows of fold i modulo the number of folds.
        x: inputs, (n, features).
        folds: row numbers of each fold. If there is one, no network has seen its rows, and they
            are predicted by all.

    Returns:
        The predictions for the rows of the folds, one fold after the other.

    """
    k = len(folds)
    predictions: list[Any] = []
    for i, fold in enumerate(folds):
        if len(fold):
            rows = np.asarray(x[fold])
            by_fold = [predict_distribution(members[j::k], rows) for j in range(k)]
            own = by_fold.pop(i)
            means = [one.center for one in by_fold]
            predictions.append(_widened(own, means) if len(means) > 1 else own)
    joined: Distribution = type(predictions[0]).concatenate(predictions)
    return joined


def _widened(own: Distribution, means: Sequence[Array]) -> Any:
    """Return distributions of the same center and family, with 2 B more covariance."""
    n = len(means)
    spread = np.stack(means) - np.mean(means, axis=0)
    # 2 B, for B = n/(n + 1) Σ δ δᵀ/(n − 1).
    return own.widened(np.sqrt(2.0 * n / ((n + 1) * (n - 1))) * spread)
