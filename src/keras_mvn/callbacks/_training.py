"""What callbacks need of a model in the middle of `fit`, on every backend.

On JAX the weights live outside the model during an epoch, and a compiled step reads every
variable that is not the model's or the optimizer's as a constant. Both are dealt with here.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array, Tensor
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import heads

__all__ = ["Snapshot", "find_head", "retrace", "sync", "to_numpy"]


def sync(model: Any) -> None:
    """Make `model.weights` hold what was learnt so far, also in the middle of an epoch."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def retrace(model: Any) -> None:
    """Compile the training and test steps again, as what they read has changed."""
    model.make_train_function(force=True)
    model.make_test_function(force=True)


def find_head(model: Any, head: MultivariateNormalHead | None, user: str) -> Any:
    """The head named by the user, or the only one in the model.

    Raises:
        ValueError: the model has none, or more than one.

    """
    if head is not None:
        return head
    found = heads(model)
    if len(found) != 1:
        raise ValueError(
            f"{user} looks for one MultivariateNormalHead in the model and found "
            f"{[layer.name for layer in found] or 'none'}. Say which: {user}(..., head=…)."
        )
    return found[0]


def to_numpy(x: Tensor) -> Array:
    """A float64 copy."""
    if keras.ops.is_tensor(x) or isinstance(x, keras.Variable):
        x = keras.ops.convert_to_numpy(x)
    return np.array(x, dtype=np.float64)


class Snapshot:
    """A copy of a model's weights and its optimizer's variables, held in the host's memory.

    Without the learning rate, which belongs to the user and other callbacks.
    """

    def __init__(self, model: Any, when: str) -> None:
        self.when = when
        sync(model)
        rate = model.optimizer.learning_rate
        slots = [variable for variable in model.optimizer.variables if variable is not rate]
        self._variables = [*model.weights, *slots]
        # `convert_to_numpy` may be a view of memory that the next step overwrites.
        self._values = [np.array(keras.ops.convert_to_numpy(v)) for v in self._variables]

    def not_finite(self) -> list[str]:
        """Paths of the variables that hold NaN or infinite numbers."""
        return [
            variable.path
            for variable, value in zip(self._variables, self._values, strict=True)
            if not np.isfinite(value).all()
        ]

    def restore(self, model: Any) -> None:
        """Give the model these values again."""
        sync(model)
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
