"""Lookup of structures by name, as `keras.activations.get` does for activations."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeAlias

import keras

from keras_mvn.covariances.base import REGISTERED, Covariance

__all__ = ["CovarianceLike", "get"]

CovarianceLike: TypeAlias = "str | Covariance | dict[str, Any]"


def get(identifier: CovarianceLike) -> Covariance:
    """Return the structure for a name, an instance or a serialized structure.

    Args:
        identifier: a name such as "cholesky", a `Covariance`, or a serialized one.

    Raises:
        ValueError: there is no structure with this name (the message lists the known ones), or it
            needs arguments, so an instance must be passed.

    >>> get("precision_cholesky")
    PrecisionCholesky()

    """
    if isinstance(identifier, Covariance):
        return identifier
    if isinstance(identifier, dict):
        structure = keras.saving.deserialize_keras_object(identifier)
        if isinstance(structure, Covariance):
            return structure
    if isinstance(identifier, str) and identifier in REGISTERED:
        return _without_arguments(identifier)
    raise ValueError(
        f"covariance={identifier!r} is not a covariance structure. Expected one of "
        f"{sorted(REGISTERED)}, or an instance of keras_mvn.covariances.Covariance."
    )


def _without_arguments(name: str) -> Covariance:
    cls = REGISTERED[name]
    required = [f"{field.name}=..." for field in fields(cls) if field.default is MISSING]
    if required:
        raise ValueError(
            f"covariance={name!r} has required arguments. Pass an instance: "
            f"keras_mvn.covariances.{cls.__name__}({', '.join(required)})."
        )
    return cls()
