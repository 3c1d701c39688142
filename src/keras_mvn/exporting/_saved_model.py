"""The SavedModel format: a folder for TensorFlow Serving and tf.saved_model.load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, final

import keras

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.exporting._formats import Format
from keras_mvn.exporting._serving import Serving

__all__ = ["SavedModel"]

_GRAPH = "saved_model.pb"
_METADATA = Path("assets.extra", "keras_mvn.json")
"""Path of the metadata, in the folder that TensorFlow reserves for additional files."""


@final
class SavedModel(Format):
    """The SavedModel format, written by Keras' ExportArchive with one endpoint, `serve`."""

    name = "saved_model"
    hint = (
        "From the JAX backend, it would contain LAPACK calls (the eigendecomposition of covariance="
        "'symmetric'), which TensorFlow cannot run. Save the model as a .keras file and run "
        "`export` on it under KERAS_BACKEND=tensorflow, or train with another structure."
    )
    refusals: ClassVar[dict[str, str]] = {
        "torch": (
            "Keras needs torch_xla for it, which keras-mvn does not support. Write "
            "format='onnx'; or save the model as a .keras file and run `export` on it under "
            "KERAS_BACKEND=tensorflow."
        )
    }

    def check_path(self, path: Path) -> None:
        """Check that path is a folder that is new, empty, or contains a SavedModel."""
        if path.is_file() or path.suffix in (".onnx", ".keras"):
            raise ValueError(
                f"path={str(path)!r} must be a folder. Use format='onnx' to write a file."
            )
        if path.is_dir() and any(path.iterdir()) and not (path / _GRAPH).exists():
            raise ValueError(
                f"path={str(path)!r} is a folder with other contents, which would be replaced. "
                "Pass the path of a new folder."
            )

    def require(self, backend: str, verify: bool) -> None:
        """Import TensorFlow."""
        require("tensorflow", "export")

    def write(self, serving: Serving, path: Path, opset: int | None) -> None:
        """Write the endpoint `serve`, which is also `serving_default`, and the metadata."""
        tf = require("tensorflow", "export")
        archive = keras.export.ExportArchive()
        for model in serving.models:
            archive.track(model)
        jax = {"jax2tf_kwargs": {"with_gradient": False}}
        archive.add_endpoint(
            "serve",
            lambda inputs: serving.named(serving.of(inputs)),
            input_signature=[serving.signature.structure],
            **(jax if keras.backend.backend() == "jax" else {}),
        )
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        archive.write_out(str(path), options=options, verbose=False)
        (path / _METADATA).parent.mkdir()
        (path / _METADATA).write_text(json.dumps(serving.metadata(), indent=2) + "\n")

    def run(
        self, serving: Serving, path: Path, batches: list[list[Array]]
    ) -> list[dict[str, Array]]:
        """Run the file in TensorFlow."""
        tf = require("tensorflow", "export")
        loaded = tf.saved_model.load(str(path))

        def served(rows: list[Array]) -> dict[str, Any]:
            outputs = loaded.serve(serving.signature.pack(map(tf.constant, rows)))
            return {name: output.numpy() for name, output in outputs.items()}

        return [served(rows) for rows in batches]
