"""Copies of a model with a head whose predictions are recalibrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import heads, normal_heads
from keras_mvn.layers._head import Head

__all__ = ["with_last_layer", "with_scaled_errors"]


HeadT = TypeVar("HeadT", bound=Head)


def with_scaled_errors(model: keras.Model, factors: Array) -> keras.Model:
    """Return a copy of the model whose head predicts D Σ D, D = diag(factors).

    Args:
        model: Keras model with one head; left unchanged.
        factors: one number, or (d,), factors on the standard deviations.

    Raises:
        ValueError: the model does not have exactly one head, or its head is for a different number
            of targets or has a structure that cannot represent these factors.

    """
    calibrated = _copy(model)
    (head,) = _require_one(heads(calibrated), calibrated)
    d = head.event_size
    if factors.shape not in ((), (d,)):
        raise ValueError(
            f"This recalibration is for {factors.size} targets; the head {head.name!r} has {d}."
        )
    parts = head.each_component()
    if not all(_holds(part, factors) for part in parts):
        raise ValueError(
            f"covariance={head.covariance.name!r} cannot scale each target by its own factor. "
            "Apply the recalibration to head.distribution(y_pred), or use Temperature or "
            "MatrixScaling."
        )
    for part in parts:
        for scales in (part.origin_scale, part.scale_floor):
            if scales is not None:
                scales.assign(_numpy(scales) * factors)
    return calibrated


def _holds(head: MultivariateNormalHead, factors: Array) -> bool:
    """Whether factors on the origin's scales yield the same factors on the predicted scales."""
    d, origin = head.event_size, _numpy(head.origin_scale)
    shape = np.zeros(head.covariance.shape_size(d))
    before, after = (
        head.covariance.relocate(np.ones(d), shape, scale, shape)[0]
        for scale in (origin, origin * factors)
    )
    return np.allclose(after, before * factors, rtol=1e-5, atol=0.0)


def with_last_layer(
    model: keras.Model, layer_behind: Callable[[MultivariateNormalHead], keras.layers.Layer]
) -> keras.Model:
    """Return a copy of the model with one more layer after its head; other outputs are kept.

    Raises:
        ValueError: the model does not have exactly one head, or the head's output is not an output
            of the model.

    """
    _require_weights(model)
    if not getattr(model, "outputs", None):
        raise ValueError(
            f"The layers of model {model.name!r} cannot be inspected, because it is a subclass of "
            "keras.Model. In its call method, apply the layer `calibration.layer(head)` after the "
            "head."
        )
    calibrated = _copy(model)
    head = _only_head(calibrated)
    outputs = [output for output in calibrated.outputs if _writer(output) is head]
    if len(outputs) != 1:
        raise ValueError(
            f"{head.name!r} must be the last layer of exactly one output of model {model.name!r}; "
            f"it is that of {len(outputs)} of {len(calibrated.outputs)} outputs. Layers after it "
            "were not trained on recalibrated predictions."
        )
    layer = layer_behind(head)
    if isinstance(calibrated, keras.Sequential):
        calibrated.add(layer)
        return calibrated

    def replaced(output: Any) -> Any:
        return layer(output) if output is outputs[0] else output

    structure = keras.tree.map_structure(replaced, calibrated.output)
    return keras.Model(calibrated.input, structure, name=model.name)


def _writer(output: Any) -> Any:
    """Return the layer that produced a symbolic tensor, even inside nested models."""
    history = output._keras_history
    layer = history.operation
    inner = getattr(layer, "outputs", None)
    return _writer(inner[history.tensor_index]) if inner else layer


def _require_weights(model: keras.Model) -> None:
    if not model.built:
        raise ValueError(f"Model {model.name!r} has no weights yet. Train it first.")


def _copy(model: keras.Model) -> keras.Model:
    _require_weights(model)
    copied = keras.models.clone_model(model)
    if not copied.built:
        copied.build_from_config(model.get_build_config())
    copied.set_weights(model.get_weights())
    return copied


def _only_head(model: keras.Model) -> MultivariateNormalHead:
    return _require_one(normal_heads(model), model)[0]


def _require_one(found: list[HeadT], model: keras.Model) -> list[HeadT]:
    if len(found) != 1:
        raise ValueError(
            f"apply needs exactly one head that it can correct in model {model.name!r}; found "
            f"{[head.name for head in found] or 'none'}. Apply the recalibration to "
            "head.distribution(y_pred) instead."
        )
    return found


def _numpy(variable: Any) -> Array:
    return np.array(keras.ops.convert_to_numpy(variable), dtype=np.float64)
