"""Rows of a batch: targets with an event axis, weights per row, rows that weigh nothing."""

from __future__ import annotations

import warnings

import keras
from keras import ops

from keras_mvn._keras import get_keras_mask
from keras_mvn.types import Tensor

__all__ = ["as_events", "as_tensor", "weighted_events"]


def as_tensor(x: Tensor) -> Tensor:
    """A tensor; one that is a tensor already keeps its identity, and with it mask and tag."""
    return x if ops.is_tensor(x) else ops.convert_to_tensor(x)


def as_events(y_true: Tensor, mean: Tensor) -> Tensor:
    """y_true with an event axis, in the dtype of the mean: (...) becomes (..., 1)."""
    if keras.backend.standardize_dtype(y_true.dtype) == "bool":
        warnings.warn(
            "y_true is boolean; a multivariate normal describes continuous targets. It is read "
            "as 0 and 1.",
            stacklevel=4,
        )
    y_true = ops.cast(y_true, mean.dtype)
    return y_true if len(y_true.shape) == len(mean.shape) else y_true[..., None]


def weighted_events(
    y_true: Tensor, y_pred: Tensor, mean: Tensor, sample_weight: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y_true as events, harmless in rows that weigh nothing; the weights and the mask of the rows.

    Args:
        y_true: (..., d), or (...) for one target.
        y_pred: what the model emitted, which carries Keras' mask.
        mean: (..., d), read from y_pred.
        sample_weight: as the user gave it.

    Raises:
        ValueError: weights that are not one number per row.

    """
    weight = _row_weights(sample_weight, mean, "sample_weight")
    mask = _row_weights(get_keras_mask(y_pred), mean, "the mask")
    return _hide_unweighted(as_events(y_true, mean), mean, weight, mask), weight, mask


def _row_weights(weight: Tensor | None, mean: Tensor, name: str) -> Tensor | None:
    """Weights or a mask as one number per row (...); None stays None.

    Args:
        weight: as many batch axes as the mean has, or fewer (each weighs all that follows), and
            perhaps a last axis of 1.
        mean: (..., d).
        name: for the message.

    Raises:
        ValueError: one number per target, or axes that are not those of the batch.

    """
    if weight is None:
        return None
    weight = ops.cast(as_tensor(weight), mean.dtype)
    batch = tuple(mean.shape)[:-1]
    shape = tuple(weight.shape)
    axes = shape[:-1] if len(shape) == len(batch) + 1 and shape[-1] == 1 else shape
    fits = len(axes) <= len(batch) and all(
        a is None or b is None or a in (1, b) for a, b in zip(axes, batch, strict=False)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {shape}; rows have batch shape {batch} and are weighted as a whole, "
            f"so it must have one number per row, not one per target."
        )
    weight = weight[..., 0] if len(axes) < len(shape) else weight
    while len(weight.shape) < len(batch):
        weight = weight[..., None]
    return weight * ops.ones_like(mean[..., 0])


def _hide_unweighted(y_true: Tensor, mean: Tensor, *weights: Tensor | None) -> Tensor:
    """y_true, replaced by the mean in rows where any of these row weights (...) is 0.

    NaN · 0 is NaN: a row that weighs nothing must not hold a NaN before anything is subtracted.
    """
    for weight in weights:
        if weight is not None:
            nonzero = ops.not_equal(weight, 0)[..., None]
            y_true = ops.where(nonzero, y_true, ops.stop_gradient(mean))
    return y_true
