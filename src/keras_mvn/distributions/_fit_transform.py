"""Choosing and fitting a transform of the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions._sklearn_transform import SklearnTransform
from keras_mvn.distributions._transforms import (
    BoxCox,
    Log,
    TargetTransform,
    YeoJohnson,
    require_positive,
)

__all__ = ["fit_target_transform"]


def fit_target_transform(
    identifier: Any, y: Array, names: Sequence[str] | None
) -> TargetTransform | None:
    """Return the chosen transform, fitted to training targets; None for no transform.

    Args:
        identifier: None, "log", "box-cox", "yeo-johnson", or a scikit-learn transformer with
            `inverse_transform`, of which a clone is fitted.
        y: (n, d), training targets, NaN where missing.
        names: d names of the targets, or None.

    Raises:
        ValueError: the identifier is unknown, values are outside the domain, or the transformer
            is not a strictly monotone function of each target alone.

    """
    known = target_names_of(tuple(names) if names else None, y.shape[1])
    if identifier is None:
        return None
    if isinstance(identifier, str) and identifier in _NAMED:
        return _NAMED[identifier](y, known)
    if hasattr(identifier, "inverse_transform") and hasattr(identifier, "fit"):
        clone = require("sklearn.base", "target_transform").clone
        return SklearnTransform(clone(identifier), y, known)
    raise ValueError(
        f"target_transform={identifier!r} is not known. Expected None, one of {sorted(_NAMED)}, or "
        "a scikit-learn transformer with inverse_transform."
    )


def _log(y: Array, names: list[str]) -> TargetTransform:
    require_positive(y, names, "log")
    return Log(y.shape[1])


def _box_cox(y: Array, names: list[str]) -> TargetTransform:
    require_positive(y, names, "box-cox")
    unit = np.exp(np.nanmean(np.log(y), axis=0))
    return BoxCox(_best_powers(y / unit, "box-cox", np.inf), unit)


def _yeo_johnson(y: Array, names: list[str]) -> TargetTransform:
    unit = np.nanstd(y, axis=0)
    unit = np.where(unit > 0, unit, 1.0)
    return YeoJohnson(_best_powers(y / unit, "yeo-johnson", 2.0), unit)


def _best_powers(y: Array, method: str, largest: float) -> Array:
    """Return the λ of highest likelihood for the targets alone, clipped to [0, largest]."""
    preprocessing = require("sklearn.preprocessing", "target_transform")
    transformer = preprocessing.PowerTransformer(method, standardize=False)
    constant = np.nanmax(y, axis=0) == np.nanmin(y, axis=0)
    power = np.ones(y.shape[1])
    if not constant.all():
        power[~constant] = transformer.fit(y[:, ~constant]).lambdas_
    return np.clip(np.nan_to_num(power, nan=1.0), 0.0, largest)


_NAMED = {"log": _log, "box-cox": _box_cox, "yeo-johnson": _yeo_johnson}
