"""Conversion from PyTorch to ONNX, with torch.onnx and onnxscript."""

from __future__ import annotations

from typing import Any

import keras

from keras_mvn._core.optional import require
from keras_mvn.exporting._serving import Serving

__all__ = ["PACKAGES", "to_onnx"]

PACKAGES = ("onnxscript",)

_TRACED_ROWS = 3
"""Number of rows for tracing; not 1, which PyTorch treats as a fixed length."""


def to_onnx(serving: Serving, opset: int | None) -> Any:
    """Convert to a ModelProto with the signature's inputs and named outputs."""
    torch = require("torch", "export")
    training = [model.training for model in serving.models]
    module = _module(torch, serving).eval()
    rows = serving.signature.rows(_TRACED_ROWS)
    axes = [
        {axis: _axis(i, axis) for axis, size in enumerate(spec.shape) if size is None}
        for i, spec in enumerate(serving.signature.specs)
    ]
    try:
        program = torch.onnx.export(
            module,
            tuple(map(keras.ops.convert_to_tensor, rows)),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=serving.signature.names,
            output_names=list(serving.outputs),
            dynamic_shapes=(tuple(axes),),
            custom_translation_table={torch.ops.aten.squeeze.dim: _squeeze},
        )
    finally:
        for model, before in zip(serving.models, training, strict=True):
            model.train(before)
    return program.model_proto


def _axis(i: int, axis: int) -> str:
    return "batch" if axis == 0 else f"input_{i}_axis_{axis}"


def _module(torch: Any, serving: Serving) -> Any:
    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.models = torch.nn.ModuleList(serving.models)

        def forward(self, *flat: Any) -> Any:
            return serving(*flat)

    return Served()


def _squeeze(self, dim: int):  # type: ignore[no-untyped-def]  # onnxscript reads annotations
    """Translate `squeeze(x, dim)`, which `keras.ops.take` calls on axes of any length.

    PyTorch keeps an axis whose length is not 1, whereas ONNX's Squeeze, which torch.onnx (2.13)
    always writes, rejects it.
    """
    op = require("onnxscript", "export").opset18
    return op.Squeeze(self, [dim]) if self.shape[dim] == 1 else op.Identity(self)
