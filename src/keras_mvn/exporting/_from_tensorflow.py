"""TensorFlow → ONNX, by tf2onnx."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn.exporting._serving import Serving

__all__ = ["PACKAGES", "to_onnx"]

PACKAGES = ("tf2onnx",)


def to_onnx(serving: Serving, opset: int | None) -> Any:
    """A ModelProto with the signature's inputs and named outputs.

    `tf2onnx.convert.from_function` would do, but takes every tensor that the traced function
    captured, such as the mean and the variance of `keras.layers.Normalization`, for an input.
    """
    tf, tf2onnx = require("tensorflow", "export"), require("tf2onnx", "export")
    specs = serving.signature.specs
    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in specs]
    traced = tf.function(serving, signature, autograph=False).get_concrete_function()
    inputs = [tensor.name for tensor in traced.inputs[: len(specs)]]  # what is captured comes last
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
"""(operation, its inputs) → its output."""


def _erfc(node: Node, x: str, one: str, two: str) -> str:
    """1 − erf(x): in `keras.activations.gelu`."""
    return node("Sub", one, node("Erf", x))


def _expm1(node: Node, x: str, one: str, two: str) -> str:
    """tanh(x/2) (exp(x) + 1), which does not cancel where x is small."""
    return node("Mul", node("Tanh", node("Div", x, two)), node("Add", node("Exp", x), one))


def _log1p(node: Node, x: str, one: str, two: str) -> str:
    """2 artanh(x / (2 + x)), which does not cancel where x is small."""
    return node("Mul", two, node("Atanh", node("Div", x, node("Add", x, two))))


_WRITERS = {"Erfc": _erfc, "Expm1": _expm1, "Log1p": _log1p}
"""Operations of TensorFlow that tf2onnx 1.17 does not know."""


def _handler(write: Callable[[Node, str, str, str], str]) -> Callable[..., None]:
    """As tf2onnx calls it: takes a node out of the graph and puts others in its place."""

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
