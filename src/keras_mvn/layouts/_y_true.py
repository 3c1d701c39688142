"""Rows of a batch: targets with an event axis, what of them was observed, weights per row."""

from __future__ import annotations

import functools
import operator
import warnings
from typing import NamedTuple

import keras
from keras import ops

from keras_mvn._core.keras_internals import get_keras_mask
from keras_mvn._core.numeric import count_rows
from keras_mvn._core.types import Tensor

__all__ = ["Targets", "as_events", "as_tensor", "product", "read_targets", "weighted_events"]


class Targets(NamedTuple):
    """The targets of a batch, as losses and metrics get them."""

    values: Tensor
    """(..., d), a finite stand-in where nothing was observed."""
    observed: Tensor | None = None
    """(..., d), 1 where observed and 0 elsewhere; None if every target counts as observed."""
    unit: Tensor | None = None
    """(d,), the standard deviations that `adapt` measured; None where no loss asks for them."""
    weight: Tensor | None = None
    """(...), how much each row counts, masked rows nothing; None if all count alike. Losses are
    weighted when they are reduced: only what is taken over the batch needs it before."""

    def observed_count(self) -> Tensor | int:
        """How many targets of each row were observed: (...), or d."""
        if self.observed is None:
            return int(self.values.shape[-1])
        return ops.sum(self.observed, axis=-1)

    def mean_over_rows(self, x: Tensor) -> Tensor:
        """The mean of x (..., d) over what was observed in the rows that count: (d,).

        1 where nothing was, which no row then divides by.
        """
        rows = tuple(range(len(x.shape) - 1))
        counted = product(self.observed, None if self.weight is None else self.weight[..., None])
        # Sums over a count: on PyTorch, Keras' mean of float64 is taken in float32.
        if counted is None:
            return ops.sum(x, axis=rows) / count_rows(x)
        counted = counted * ops.ones_like(x)
        count = ops.sum(counted, axis=rows)
        some = count > 0
        return ops.where(some, ops.sum(counted * x, axis=rows) / ops.where(some, count, 1.0), 1.0)

    def of_observed(self, x: Tensor) -> Tensor:
        """x (..., d), 0 where nothing was observed."""
        return x if self.observed is None else x * self.observed


def read_targets(
    y_true: Tensor,
    mean: Tensor,
    missing: str,
    unit: Tensor | None = None,
    weight: Tensor | None = None,
) -> Targets:
    """y_true as events; with "marginalize", NaN marks what was not observed.

    What is missing is replaced by the mean before anything is subtracted: NaN · 0 is NaN.
    """
    values = as_events(y_true, mean)
    if missing == "propagate":
        return Targets(values, None, unit, weight)
    missing_here = ops.isnan(values)
    observed = ops.cast(ops.logical_not(missing_here), mean.dtype)
    return Targets(ops.where(missing_here, ops.stop_gradient(mean), values), observed, unit, weight)


def product(*factors: Tensor | None) -> Tensor | None:
    """The product of those that are there; None if none is."""
    given = [factor for factor in factors if factor is not None]
    return functools.reduce(operator.mul, given) if given else None


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
    if len(y_true.shape) == len(mean.shape) and y_true.shape[-1] is None:
        # TensorFlow knows it when it runs: what is not d per row is refused there.
        y_true = ops.reshape(y_true, (*ops.shape(y_true)[:-1], mean.shape[-1]))
    if y_true.dtype != mean.dtype:  # Keras' cast is not free where nothing is compiled
        y_true = ops.cast(y_true, mean.dtype)
    return y_true if len(y_true.shape) == len(mean.shape) else y_true[..., None]


def weighted_events(
    y_true: Tensor,
    y_pred: Tensor,
    mean: Tensor,
    sample_weight: Tensor | None,
    missing: str = "propagate",
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y_true as events, harmless in rows that weigh nothing; the weights and the mask of the rows.

    Args:
        y_true: (..., d), or (...) for one target.
        y_pred: what the model emitted, which carries Keras' mask.
        mean: (..., d), read from y_pred.
        sample_weight: as the user gave it.
        missing: with "marginalize", rows in which nothing was observed weigh nothing.

    Raises:
        ValueError: weights that are not one number per row.

    """
    weight = _row_weights(sample_weight, mean, "sample_weight")
    mask = _row_weights(get_keras_mask(y_pred), mean, "the mask")
    y_true = as_events(y_true, mean)
    if missing == "marginalize":
        anything = ops.cast(ops.logical_not(ops.all(ops.isnan(y_true), axis=-1)), mean.dtype)
        weight = anything if weight is None else weight * anything
    return _hide_unweighted(y_true, mean, weight, mask), weight, mask


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
