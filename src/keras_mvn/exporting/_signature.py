"""Inputs of a model: names, shapes, dtypes, and random rows to run it on."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array

__all__ = ["Signature", "signature_of"]

_AUTOMATIC_NAME = re.compile(r"keras_tensor(_\d+)?")
_TRIAL_LENGTH = 4
"""Length, in random rows, of axes without a fixed length."""


class Signature:
    """The single argument of a model: a tensor, or a list or dictionary of tensors.

    Args:
        structure: structure of `keras.InputSpec`, each with None as its first axis.

    """

    def __init__(self, structure: Any) -> None:
        self.structure = structure
        self.specs: list[keras.InputSpec] = keras.tree.flatten(structure)

    @property
    def names(self) -> list[str]:
        """Name of each input, in the order of `specs`."""
        return [spec.name for spec in self.specs]

    def pack(self, flat: Any) -> Any:
        """Build the model's argument from tensors in the order of `specs`."""
        return keras.tree.pack_sequence_as(self.structure, list(flat))

    def rows(self, number: int) -> list[Array]:
        """Return random numbers for each floating-point input, and zeros for the others."""
        rng = np.random.default_rng(number)
        rows = []
        for spec in self.specs:
            shape = (number, *(size or _TRIAL_LENGTH for size in spec.shape[1:]))
            floating = "float" in spec.dtype
            values = rng.standard_normal(shape) if floating else np.zeros(shape)
            rows.append(values.astype("str" if spec.dtype == "string" else spec.dtype))
        return rows


def signature_of(model: keras.Model) -> Signature:
    """Return the inputs of a built model.

    Raises:
        ValueError: the model is not built, or is a subclass whose inputs Keras does not know.

    """
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} has no weights yet. Train it, load it, or call it on rows first."
        )
    inputs = _inputs(model)
    tensors = keras.tree.flatten(inputs)
    names = iter(_names(tensors))
    return Signature(keras.tree.map_structure(lambda tensor: _spec(tensor, next(names)), inputs))


def _inputs(model: keras.Model) -> Any:
    if not getattr(model, "inputs", None):
        return _inputs_of_subclass(model)
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _inputs_of_subclass(model: keras.Model) -> Any:
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (tuple, list)) or not all(
        size is None or isinstance(size, int) for size in shape
    ):
        raise ValueError(
            f"The inputs of model {model.name!r}, a subclass of keras.Model, are unknown. Wrap "
            "it: x = keras.Input(…); export(keras.Model(x, model(x)), …)."
        )
    return keras.KerasTensor((None, *shape[1:]), dtype=model.input_dtype)


def _names(tensors: list[Any]) -> list[str]:
    """Return names chosen by the user, and `input_<i>` for those that Keras numbered."""
    return [
        f"input_{i}" if _AUTOMATIC_NAME.fullmatch(tensor.name) else tensor.name
        for i, tensor in enumerate(tensors)
    ]


def _spec(tensor: Any, name: str) -> keras.InputSpec:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.InputSpec(shape=(None, *tensor.shape[1:]), dtype=dtype, name=name)
