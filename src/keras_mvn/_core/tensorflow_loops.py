"""Gradients inside TensorFlow's loops, some of which lose or break custom ones.

`tf.vectorized_map` traces its function once and then rewrites each operation for all elements at
once. In the rewritten graph, `tf.custom_gradient` is an ordinary identity: a gradient taken inside
the function is still the custom one; one taken outside is, without a warning, that of the forward
operations. `keras.layers.TimeDistributed` maps its layer like this when the number of steps is
unknown, and `GradientTape.jacobian` maps the backward pass. In a while loop, as of `tf.map_fn`,
custom gradients survive, except in a `tf.cond`, where they stop with an AssertionError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_mvn._core.optional import require
from keras_mvn._core.types import Tensor

__all__ = ["custom_gradients_fail", "differentiable_by_operations", "inside_vectorized_map"]

_ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

_MAPPED = re.compile(r"(^|/)loop_body(_\d+)?(/|$)")
"""The name scope in which `tf.vectorized_map` traces its function; nothing else tells."""


def inside_vectorized_map() -> bool:
    """Return whether TensorFlow is tracing the function of a `tf.vectorized_map`.

    Always False on other backends, whose `vmap` keeps custom gradients.
    """
    return _ON_TENSORFLOW and any(_MAPPED.search(graph.get_name_scope()) for graph in _graphs())


def custom_gradients_fail() -> bool:
    """Return whether TensorFlow is tracing a function where it loses or breaks custom gradients."""
    if not _ON_TENSORFLOW:
        return False
    kinds = [type(graph).__name__ for graph in _graphs()]  # from the inside out
    branch = kinds.index("CondBranchFuncGraph") if "CondBranchFuncGraph" in kinds else len(kinds)
    return "WhileBodyFuncGraph" in kinds[branch:] or inside_vectorized_map()


def _graphs() -> Iterator[Any]:
    """Yield the graph that is being traced, and those around it."""
    tf = require("tensorflow", "Keras' backend")
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None:
        yield graph
        graph = getattr(graph, "outer_graph", None)


def differentiable_by_operations(
    forward: Callable[..., Tensor],
    vjp: Callable[..., Tensor | tuple[Tensor, ...]],
    *inputs: Tensor,
) -> Tensor:
    """Return `forward(*inputs)` with the gradient of `vjp`, by ordinary operations of TensorFlow.

    The result is f(x₀) + J (x − x₀), where x₀ is x without its gradient, so that the second term is
    exactly 0. `vjp` is the linear map Jᵀ, and J is the gradient of that map.

    Args:
        forward: as in `numeric.differentiable`.
        vjp: as in `numeric.differentiable`.
        *inputs: tensors.

    """
    tf = require("tensorflow", "Keras' backend")
    fixed = [tf.stop_gradient(x) for x in inputs]
    output = tf.stop_gradient(forward(*inputs))
    with tf.GradientTape() as tape:
        output_bar = tf.zeros_like(output)
        tape.watch(output_bar)
        input_bars = tf.nest.flatten(vjp(output_bar, output, *fixed))
    zeros = [x - x0 for x, x0 in zip(inputs, fixed, strict=True)]
    slopes = tape.gradient(input_bars, output_bar, zeros, tf.UnconnectedGradients.ZERO)
    return output + tf.convert_to_tensor(slopes)  # the gradient of a gather is sparse
