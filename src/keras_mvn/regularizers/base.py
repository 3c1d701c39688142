"""The base class of penalties on a predicted covariance."""

from __future__ import annotations

import abc
from typing import Any

import keras

from keras_mvn._core.saved_configs import current_config
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters

__all__ = ["CovarianceRegularizer", "get"]


class CovarianceRegularizer(abc.ABC):
    """A penalty per row, added to a loss before weights and reduction apply.

    A subclass implements `__call__` and `get_config`, and is registered with
    `keras.saving.register_keras_serializable`.
    """

    @abc.abstractmethod
    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """Return the penalty (...) for these parameters (`mean`, `scale`, `shape_params`)."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CovarianceRegularizer:
        """Create the penalty from its configuration."""
        return cls(**current_config(cls, config))


def get(identifier: Any) -> CovarianceRegularizer | None:
    """Resolve a penalty, a serialized penalty or None to a penalty or None.

    Raises:
        ValueError: `identifier` is anything else.

    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if identifier is None or isinstance(identifier, CovarianceRegularizer):
        return identifier
    raise ValueError(
        f"regularizer={identifier!r} is not a covariance penalty. Expected None or an instance "
        "such as keras_mvn.regularizers.CovarianceL1(0.01). Keras' own regularizers act on "
        "weights; pass those to layers."
    )
