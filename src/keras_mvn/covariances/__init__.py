"""Covariance structures: how a network's numbers describe a covariance matrix.

One structure is one file. `get` turns a name, an instance or a saved configuration into one.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras

from keras_mvn._numeric import namespace as namespace
from keras_mvn.covariances.base import Covariance as Covariance
from keras_mvn.covariances.cholesky import Cholesky as Cholesky
from keras_mvn.covariances.diagonal import Diagonal as Diagonal
from keras_mvn.covariances.isotropic import Isotropic as Isotropic
from keras_mvn.covariances.precision_cholesky import PrecisionCholesky as PrecisionCholesky
from keras_mvn.covariances.symmetric import Symmetric as Symmetric

__all__ = [
    "Cholesky",
    "Covariance",
    "Diagonal",
    "Isotropic",
    "PrecisionCholesky",
    "Symmetric",
    "get",
    "namespace",
]

_STRUCTURES = (Isotropic, Diagonal, Cholesky, PrecisionCholesky, Symmetric)

DEFAULT = "cholesky"
"""The structure of head, loss, metrics and distribution if none is named (docs/defaults.md)."""

CovarianceLike: TypeAlias = "str | Covariance | dict[str, Any]"


def get(identifier: CovarianceLike) -> Covariance:
    """The structure of this name, as `keras.activations.get` resolves activations.

    Args:
        identifier: a name ("cholesky"), a `Covariance`, or a serialized one.

    Raises:
        ValueError: no structure has this name; the message lists those that exist.

    >>> get("precision_cholesky")
    PrecisionCholesky()

    """
    if isinstance(identifier, Covariance):
        return identifier
    if isinstance(identifier, dict):
        structure = keras.saving.deserialize_keras_object(identifier)
        if isinstance(structure, Covariance):
            return structure
    known = {cls().name: cls for cls in _STRUCTURES}
    if isinstance(identifier, str) and identifier in known:
        return known[identifier]()
    raise ValueError(
        f"covariance={identifier!r} is not a covariance structure. Expected one of "
        f"{sorted(known)}, or an instance of keras_mvn.covariances.Covariance."
    )
