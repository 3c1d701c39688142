"""Penalties on a predicted covariance, given to any loss as `regularizer=`."""

from __future__ import annotations

import abc
from typing import Any, final

import keras

from keras_mvn._numeric import namespace
from keras_mvn.covariances import Covariance
from keras_mvn.covariances.packing import diagonal
from keras_mvn.layouts import Parameters
from keras_mvn.types import Tensor

__all__ = ["CovarianceL1", "CovarianceRegularizer", "get"]


class CovarianceRegularizer(abc.ABC):
    """A penalty per row, added to a loss before weights and reduction apply.

    A subclass has `__call__` and `get_config`, and is registered with
    `keras.saving.register_keras_serializable`.
    """

    @abc.abstractmethod
    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """The penalty (...) of these parameters (`mean`, `scale`, `shape_params`)."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CovarianceRegularizer:
        """The penalty of this configuration."""
        return cls(**config)


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class CovarianceL1(CovarianceRegularizer):
    """`strength · Σ |Cᵢⱼ|`, which drives covariances between targets to zero.

    C is the correlation matrix, so that the penalty does not depend on units; or, with
    `on="covariance"`, Σ itself, in squared units of y. Forms the dense matrix: O(d²) memory per
    row, O(d³) time for the triangular structures.

    Args:
        strength: weight of the penalty, ≥ 0.
        on: "correlation" or "covariance".
        off_diagonal: only i ≠ j. False adds the diagonal, which shrinks the variances with
            `on="covariance"` and is a constant d with `on="correlation"`.

    Raises:
        ValueError: a negative strength, or an unknown `on`.

    Source: Bien & Tibshirani, "Sparse estimation of a covariance matrix", Biometrika 98 (2011).

    >>> import numpy as np
    >>> from keras_mvn.covariances import Cholesky
    >>> scale, n = Cholesky().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> penalty = CovarianceL1(0.1)(Cholesky(), Parameters(np.zeros(2), scale, n))
    >>> float(penalty.round(6))  # 0.1 · 2 · 3/(2 · 3)
    0.1

    """

    def __init__(self, strength: float, on: str = "correlation", off_diagonal: bool = True) -> None:
        if not strength >= 0:
            raise ValueError(f"strength={strength!r} must be a number ≥ 0.")
        if on not in ("correlation", "covariance"):
            raise ValueError(f"on={on!r} is not known. Expected 'correlation' or 'covariance'.")
        self.strength = float(strength)
        self.on = on
        self.off_diagonal = bool(off_diagonal)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """The penalty (...) of these parameters."""
        _, scale, shape_params = parameters
        xp = namespace(scale)
        if self.on == "covariance":
            matrix = covariance.covariance(scale, shape_params)
        else:
            r = covariance.shape_matrix(shape_params, scale.shape[-1])
            root = xp.sqrt(diagonal(r))
            matrix = r / root[..., :, None] / root[..., None, :]
        size = xp.sum(xp.abs(matrix), axis=(-2, -1))
        if self.off_diagonal:
            size = size - xp.sum(xp.abs(diagonal(matrix)), axis=-1)
        return self.strength * size

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"strength": self.strength, "on": self.on, "off_diagonal": self.off_diagonal}


def get(identifier: Any) -> CovarianceRegularizer | None:
    """A penalty, or its serialized form, or None.

    Raises:
        ValueError: anything else.

    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if identifier is None or isinstance(identifier, CovarianceRegularizer):
        return identifier
    raise ValueError(
        f"regularizer={identifier!r} is not a penalty on a covariance. Expected None or an "
        "instance such as keras_mvn.regularizers.CovarianceL1(0.01); Keras' own regularizers act "
        "on weights and belong to layers."
    )
