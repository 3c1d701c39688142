"""Private parts of Keras: masks and attributes of tensors, loss reduction, scopes.

Keras attaches masks to tensors; on JAX, where `setattr` fails on tracers, it uses a separate table.
All imports from `keras.src` are here.
"""

from __future__ import annotations

from typing import Any

from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.masking import get_keras_mask as get_keras_mask
from keras.src.backend.common.masking import set_keras_mask as set_keras_mask
from keras.src.backend.common.symbolic_scope import in_symbolic_scope as in_symbolic_scope
from keras.src.backend.common.tensor_attributes import get_tensor_attr as get_tensor_attr
from keras.src.backend.common.tensor_attributes import set_tensor_attr as set_tensor_attr
from keras.src.losses.loss import reduce_weighted_values as reduce_weighted_values
from keras.src.losses.loss import scale_loss_for_distribution as scale_loss_for_distribution

__all__ = [
    "calls_in_progress",
    "get_keras_mask",
    "get_tensor_attr",
    "in_symbolic_scope",
    "reduce_weighted_values",
    "scale_loss_for_distribution",
    "set_keras_mask",
    "set_tensor_attr",
]


def calls_in_progress() -> list[Any]:
    """Return the scopes of the layers that are being called, from the outside in.

    Each `Layer.__call__` opens a scope of its own, whose `caller` is the layer. A layer whose
    `call` is called directly, as by `keras.layers.TimeDistributed`, has none.
    """
    return list(get_global_attribute("name_scope_stack") or [])
