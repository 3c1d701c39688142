"""Access to a model in the middle of `fit`, for callbacks, on every backend.

On JAX, the weights live outside the model during an epoch, and a compiled step treats every
variable that belongs to neither the model nor the optimizer as a constant. Both are handled here.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array, Tensor
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import normal_heads

__all__ = ["Snapshot", "find_head", "retrace", "sync", "to_numpy"]


def sync(model: Any) -> None:
    """Update `model.weights` to the current weights, also in the middle of an epoch."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def retrace(model: Any) -> None:
    """Recompile the training and test steps, because values they read have changed."""
    model.make_train_function(force=True)
    model.make_test_function(force=True)


def find_head(model: Any, head: MultivariateNormalHead | None, user: str) -> Any:
    """Return the head given by the user, or the only one in the model.

    Raises:
        ValueError: the model has no head, or more than one.

    """
    if head is not None:
        return head
    found = normal_heads(model)
    if len(found) != 1:
        raise ValueError(
            f"{user} needs exactly one MultivariateNormalHead in the model, but found "
            f"{[layer.name for layer in found] or 'none'}. Pass one: {user}(..., head=…)."
        )
    return found[0]


def to_numpy(x: Tensor) -> Array:
    """Return a float64 NumPy copy of x."""
    if keras.ops.is_tensor(x) or isinstance(x, keras.Variable):
        x = keras.ops.convert_to_numpy(x)
    return np.array(x, dtype=np.float64)


class Snapshot:
    """A copy of a model's weights and its optimizer's variables, in host memory.

    The learning rate is not included: it belongs to the user and to other callbacks.
    """

    def __init__(self, model: Any, when: str) -> None:
        self.when = when
        sync(model)
        rate = model.optimizer.learning_rate
        slots = [variable for variable in model.optimizer.variables if variable is not rate]
        self._variables = [*model.weights, *slots]
        # `convert_to_numpy` may return a view of memory that the next step overwrites.
        self._values = [np.array(keras.ops.convert_to_numpy(v)) for v in self._variables]

    def not_finite(self) -> list[str]:
        """Return the paths of the variables that contain NaN or infinite values."""
        return [
            variable.path
            for variable, value in zip(self._variables, self._values, strict=True)
            if not np.isfinite(value).all()
        ]

    def restore(self, model: Any) -> None:
        """Restore the model and its optimizer to these values."""
        sync(model)
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
