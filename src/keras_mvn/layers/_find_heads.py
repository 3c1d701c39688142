"""Functions that find the heads in a model, and their output among its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._head import Head

__all__ = ["heads", "normal_heads", "output_of"]


def heads(model: Any) -> list[Head]:
    """Return the heads in a model, in the models nested in it and in wrappers, each once."""

    def walk(layer: Any) -> Iterator[Head]:
        if isinstance(layer, Head):
            yield layer
        if isinstance(layer, keras.layers.Wrapper):
            yield from walk(layer.layer)
        for child in getattr(layer, "layers", ()):
            yield from walk(child)

    return list({id(head): head for head in walk(model)}.values())


def normal_heads(model: Any) -> list[MultivariateNormalHead]:
    """Return the heads that predict one normal or Student's t for each row, not several."""
    return [head for head in heads(model) if isinstance(head, MultivariateNormalHead)]


def output_of(y_pred: Any, output: str | int | None, user: str) -> Any:
    """Return the head's output among those of the model.

    Raises:
        ValueError: the model has several outputs and `output` is None.

    """
    if output is not None:
        return y_pred[output]
    if isinstance(y_pred, dict | list | tuple):
        known = list(y_pred) if isinstance(y_pred, dict) else list(range(len(y_pred)))
        raise ValueError(
            f"The model has several outputs, {known}. Choose the one of the head: "
            f"{user}(..., output={known[0]!r})."
        )
    return y_pred
