"""Conversion from JAX to ONNX, with jax2onnx."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn.exporting._serving import Serving

__all__ = ["PACKAGES", "to_onnx"]

PACKAGES = ("jax2onnx",)


def to_onnx(serving: Serving, opset: int | None) -> Any:
    """Convert to a ModelProto with the signature's inputs and named outputs."""
    jax, jax2onnx = require("jax", "export"), require("jax2onnx", "export")
    inputs = [
        jax.ShapeDtypeStruct(
            tuple(size or _axis(i, axis) for axis, size in enumerate(spec.shape)),
            np.dtype(spec.dtype),
        )
        for i, spec in enumerate(serving.signature.specs)
    ]
    return jax2onnx.to_onnx(
        serving,
        inputs=inputs,
        input_names=serving.signature.names,
        output_names=list(serving.outputs),
        enable_double_precision=serving.prediction.dtype == "float64",
        **({} if opset is None else {"opset": opset}),
    )


def _axis(i: int, axis: int) -> str:
    return "batch" if axis == 0 else f"input_{i}_axis_{axis}"
