"""The computation of an exported file, from a model's inputs to the outputs of one head."""

from __future__ import annotations

import abc
import json
from dataclasses import dataclass
from typing import Any, final

import keras

from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array, Tensor
from keras_mvn._core.version import __version__
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.exporting._moments import Mixed
from keras_mvn.exporting._outputs import OUTPUTS, require_of_its_kind
from keras_mvn.exporting._signature import Signature, signature_of
from keras_mvn.layers._find_heads import heads, output_of
from keras_mvn.layouts import Reader, _tag

__all__ = ["ModelServing", "Prediction", "Serving", "serving_of"]


@dataclass(frozen=True)
class Prediction:
    """The output of the model that is y_pred, and how to read it."""

    position: int
    """Index among the flattened outputs of the model."""
    reader: Reader
    event_size: int
    dtype: str


@dataclass(frozen=True)
class Serving(abc.ABC):
    """Models in inference mode, and the outputs computed from their predictions."""

    models: tuple[keras.Model, ...]
    signature: Signature
    """Inputs of each of the models."""
    prediction: Prediction
    outputs: tuple[str, ...]
    """Names of `OUTPUTS`."""

    @abc.abstractmethod
    def of(self, inputs: Any) -> tuple[Tensor, ...]:
        """Compute the outputs, in their order, from the models' inputs."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Description for error messages."""

    def __call__(self, *flat: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs, in their order, from tensors in the order of the signature."""
        return self.of(self.signature.pack(flat))

    def named(self, values: Any) -> dict[str, Any]:
        """Return outputs, given in their order, by name."""
        return dict(zip(self.outputs, values, strict=True))

    def on_numpy(self, rows: list[Array]) -> dict[str, Array]:
        """Compute the outputs with the backend, and return NumPy arrays by name."""
        values = self(*map(keras.ops.convert_to_tensor, rows))
        return self.named(map(keras.ops.convert_to_numpy, values))

    def metadata(self) -> dict[str, str]:
        """Return the metadata to store in the file, with lists and dictionaries as JSON."""
        found, reader = heads(self.models[0]), self.prediction.reader
        names = found[0].target_names if len(found) == 1 else None
        structure = keras.saving.serialize_keras_object(reader.covariance)
        return {
            "keras_mvn.version": __version__,
            "keras_mvn.target_names": json.dumps(
                target_names_of(names, self.prediction.event_size)
            ),
            "keras_mvn.outputs": json.dumps({name: OUTPUTS[name].meaning for name in self.outputs}),
            "keras_mvn.covariance": json.dumps(structure),
            "keras_mvn.layout": reader.layout.name,
            "keras_mvn.members": str(len(self.models)),
        }


@final
@dataclass(frozen=True)
class ModelServing(Serving):
    """The serving of a single model."""

    @property
    def name(self) -> str:
        """Description with the model's name, for error messages."""
        return f"Model {self.models[0].name!r}"

    def of(self, inputs: Any) -> tuple[Tensor, ...]:
        """Compute only the requested outputs from the structure and its parameters."""
        reader, y_pred = self.prediction.reader, self.y_pred(inputs)
        if reader.layout.component is None:
            normal = reader.decode(y_pred)
            return tuple(OUTPUTS[name].of(reader, normal, y_pred) for name in self.outputs)
        return tuple(OUTPUTS[name].computed(Mixed.read(reader, y_pred)) for name in self.outputs)

    def y_pred(self, inputs: Any) -> Tensor:
        """Return the output of the model that is read."""
        predictions = self.models[0](inputs, training=False)
        return keras.tree.flatten(predictions)[self.prediction.position]


def serving_of(
    model: keras.Model,
    outputs: tuple[str, ...],
    output: str | int | None,
    covariance: CovarianceLike | None,
    layout: str,
    from_raw: bool,
) -> ModelServing:
    """Return the serving of a model's head, or of the output that the arguments describe.

    Raises:
        ValueError: the output does not come from a head and is not described, or the description
            does not match its head.

    """
    signature = signature_of(model)
    trial = signature.pack(map(keras.ops.convert_to_tensor, signature.rows(2)))
    predictions = model(trial, training=False)
    flat = keras.tree.flatten(predictions)
    position = _position(predictions, flat, output)
    y_pred = flat[position]
    reader = _reader(model, y_pred, covariance, layout, from_raw)
    require_of_its_kind(outputs, reader)
    event_size = reader.components(y_pred)[0][1].mean.shape[-1]
    dtype = keras.backend.standardize_dtype(y_pred.dtype)
    return ModelServing(
        (model,), signature, Prediction(position, reader, event_size, dtype), outputs
    )


def _position(predictions: Any, flat: list[Tensor], output: str | int | None) -> int:
    written = [i for i, tensor in enumerate(flat) if _tag.read(tensor) is not None]
    if output is None and len(written) == 1:
        return written[0]
    try:
        chosen = output_of(predictions, output, "export")
    except (KeyError, IndexError, TypeError):
        known = list(predictions) if isinstance(predictions, dict) else list(range(len(flat)))
        raise ValueError(
            f"output={output!r} is not an output of the model. Expected one of {known}."
        ) from None
    return next(i for i, tensor in enumerate(flat) if tensor is chosen)


def _reader(
    model: keras.Model,
    y_pred: Tensor,
    covariance: CovarianceLike | None,
    layout: str,
    from_raw: bool,
) -> Reader:
    written = _tag.read(y_pred)
    if written is None and covariance is None and layout == "packed":
        raise ValueError(
            f"No MultivariateNormalHead is the last layer of model {model.name!r}. Specify how to "
            "read its output: export(…, covariance=…), with layout=… and from_raw=True as in its "
            "loss."
        )
    if written is not None and covariance is None:
        return Reader(written.covariance, False, written.layout)
    reader = Reader(DEFAULT if covariance is None else covariance, from_raw, layout)
    _tag.check(y_pred, reader.covariance, "export", layout, from_raw)
    return reader
