"""The matrix, and the entries of it, that an entrywise penalty acts on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_mvn._core.numeric import constant_like
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _terms

__all__ = ["check", "entries"]

_MATRICES: dict[str, Callable[[Covariance, Parameters], Tensor]] = {
    "correlation": _terms.correlation,
    "covariance": _terms.dense_covariance,
    "partial_correlation": _terms.partial_correlation,
    "precision": _terms.precision,
}


def check(on: str) -> str:
    """Return `on` if it names a matrix that `entries` supports; raise ValueError otherwise."""
    if on not in _MATRICES:
        known = ", ".join(map(repr, _MATRICES))
        raise ValueError(f"on={on!r} is not known. Expected one of {known}.")
    return on


def entries(covariance: Covariance, parameters: Parameters, on: str, off_diagonal: bool) -> Tensor:
    """Return the matrix (..., d, d) named by `on`; if off_diagonal, with zeros on its diagonal."""
    matrix = _MATRICES[on](covariance, parameters)
    if not off_diagonal:
        return matrix
    return matrix * constant_like(1.0 - np.eye(matrix.shape[-1]), matrix)
