"""The ONNX format: one file, run by onnxruntime and many others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import keras

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.exporting import _from_jax, _from_tensorflow, _from_torch
from keras_mvn.exporting._formats import Format
from keras_mvn.exporting._serving import Serving

__all__ = ["Onnx"]

_CONVERTERS = {"tensorflow": _from_tensorflow, "jax": _from_jax, "torch": _from_torch}


@final
class Onnx(Format):
    """The ONNX format; each backend has its own converter, and everything else is shared."""

    name = "onnx"
    has_opsets = True
    hint = (
        "ONNX and its converters do not support every operation; there is no eigendecomposition, "
        "which covariance='symmetric' needs. Train with another structure, try another backend, or "
        "write format='saved_model' from the TensorFlow backend."
    )

    def check_path(self, path: Path) -> None:
        """Check that path is that of a file `*.onnx`."""
        if path.suffix != ".onnx" or path.is_dir():
            raise ValueError(
                f"path={str(path)!r} must be a file path that ends in .onnx. To write a folder, "
                "use format='saved_model'."
            )

    def require(self, backend: str, verify: bool) -> None:
        """Import the backend's converter, onnx and, to verify the file, onnxruntime."""
        modules = (*_CONVERTERS[backend].PACKAGES, "onnx", *(("onnxruntime",) if verify else ()))
        for module in modules:
            require(module, "export")

    def write(self, serving: Serving, path: Path, opset: int | None) -> None:
        """Convert the model, add metadata, check it against ONNX's schemas, and save it."""
        onnx, metadata = require("onnx", "export"), serving.metadata()
        model = _CONVERTERS[keras.backend.backend()].to_onnx(serving, opset)
        _name_first_axes(model.graph)
        for part in (model.graph, *model.functions):
            _forget_the_source(part)
        model.producer_name, model.producer_version = "keras-mvn", metadata["keras_mvn.version"]
        onnx.helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        onnx.save_model(model, path)

    def run(
        self, serving: Serving, path: Path, batches: list[list[Array]]
    ) -> list[dict[str, Array]]:
        """Run the file in onnxruntime on the CPU."""
        runtime = require("onnxruntime", "export")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        known = {taken.name for taken in session.get_inputs()}
        results = []
        for rows in batches:
            named = zip(serving.signature.names, rows, strict=True)
            feed = {name: array for name, array in named if name in known}
            results.append(serving.named(session.run(list(serving.outputs), feed)))
        return results


def _name_first_axes(graph: Any) -> None:
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"


def _forget_the_source(graph: Any) -> None:
    """Drop the Python source of each node: it is most of the file, and has local paths."""
    graph.doc_string = ""
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
