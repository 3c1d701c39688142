"""Conversion from TensorFlow to ONNX, with tf2onnx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn.exporting._serving import Serving

__all__ = ["PACKAGES", "to_onnx"]

PACKAGES = ("tf2onnx",)


def to_onnx(serving: Serving, opset: int | None) -> Any:
    """Convert to a ModelProto with the signature's inputs and named outputs.

    `tf2onnx.convert.from_function` is not used, because it treats every tensor that the traced
    function captured, such as mean and variance of `keras.layers.Normalization`, as an input.
    """
    tf, tf2onnx = require("tensorflow", "export"), require("tf2onnx", "export")
    specs = serving.signature.specs
    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in specs]
    traced = tf.function(serving, signature, autograph=False).get_concrete_function()
    inputs = [tensor.name for tensor in traced.inputs[: len(specs)]]  # captures come last
    outputs = [tensor.name for tensor in traced.outputs]
    names = zip(inputs + outputs, (*serving.signature.names, *serving.outputs), strict=True)
    model, _ = tf2onnx.convert.from_graph_def(
        tf2onnx.tf_loader.from_function(traced, inputs, outputs),  # constants in place of captures
        input_names=inputs,
        output_names=outputs,
        tensors_to_rename=dict(names),
        opset=opset,
        custom_op_handlers={name: (_handler(write), []) for name, write in _WRITERS.items()},
    )
    return model


Node = Callable[..., str]
"""Function that adds a node: (operation, its inputs) → name of its output."""


def _erfc(node: Node, x: str, one: str, two: str) -> str:
    """Write erfc as 1 − erf(x); used by `keras.activations.gelu`."""
    return node("Sub", one, node("Erf", x))


def _expm1(node: Node, x: str, one: str, two: str) -> str:
    """Write expm1 as tanh(x/2) (exp(x) + 1), which does not cancel for small x."""
    return node("Mul", node("Tanh", node("Div", x, two)), node("Add", node("Exp", x), one))


def _log1p(node: Node, x: str, one: str, two: str) -> str:
    """Write log1p as 2 artanh(x / (2 + x)), which does not cancel for small x."""
    return node("Mul", two, node("Atanh", node("Div", x, node("Add", x, two))))


_WRITERS = {"Erfc": _erfc, "Expm1": _expm1, "Log1p": _log1p}
"""Operations of TensorFlow that tf2onnx 1.17 does not support."""


def _handler(write: Callable[[Node, str, str, str], str]) -> Callable[..., None]:
    """Return a handler for tf2onnx that replaces one node of the graph with several."""

    def replace(graph: Any, old: Any, name: str, args: Any) -> None:
        tf2onnx = require("tf2onnx", "export")
        unique = tf2onnx.utils.make_name
        (x,), (output,) = old.input, old.output
        shape, dtype = graph.get_shape(output), graph.get_dtype(output)
        number = tf2onnx.utils.map_onnx_to_numpy_type(dtype)

        def constant(value: float) -> str:
            return str(graph.make_const(unique(name), np.array(value, number)).output[0])

        def node(operation: str, *inputs: str) -> str:
            made = graph.make_node(
                operation, list(inputs), name=unique(name), shapes=[shape], dtypes=[dtype]
            )
            return str(made.output[0])

        graph.remove_node(name)
        result = write(node, x, constant(1.0), constant(2.0))
        graph.make_node(
            "Identity", [result], name=name, outputs=[output], shapes=[shape], dtypes=[dtype]
        )

    return replace
