"""The targets of a batch, with an event axis: values, observed entries and row weights."""

from __future__ import annotations

import functools
import operator
import warnings
from typing import NamedTuple

import keras
from keras import ops

from keras_mvn._core.checks import unmasked
from keras_mvn._core.keras_internals import get_keras_mask
from keras_mvn._core.numeric import count_rows
from keras_mvn._core.types import Tensor

__all__ = ["Targets", "as_events", "as_tensor", "product", "read_targets", "weighted_events"]


class Targets(NamedTuple):
    """The targets of a batch, as passed to losses and metrics."""

    values: Tensor
    """(..., d), with finite placeholders for missing values."""
    observed: Tensor | None = None
    """(..., d), 1 where observed and 0 elsewhere; None if every target counts as observed."""
    unit: Tensor | None = None
    """(d,), the standard deviations that `adapt` measured; None if the loss does not need them."""
    weight: Tensor | None = None
    """(...), the weight of each row, 0 for masked rows; None if all rows count equally. Losses are
    weighted when they are reduced: only statistics over the batch need the weights earlier."""

    def observed_count(self) -> Tensor | int:
        """Return the number of observed targets in each row: (...), or d if all are observed."""
        if self.observed is None:
            return int(self.values.shape[-1])
        return ops.sum(self.observed, axis=-1)

    def mean_over_rows(self, x: Tensor) -> Tensor:
        """Return the weighted mean of x (..., d) over the observed entries of all rows: (d,).

        It is 1 for a target with no observed entry; no row then divides by it.
        """
        rows = tuple(range(len(x.shape) - 1))
        counted = product(self.observed, None if self.weight is None else self.weight[..., None])
        # A sum divided by a count: on PyTorch, Keras computes the mean of float64 in float32.
        if counted is None:
            return ops.sum(x, axis=rows) / count_rows(x)
        counted = counted * ops.ones_like(x)
        count = ops.sum(counted, axis=rows)
        some = count > 0
        return ops.where(some, ops.sum(counted * x, axis=rows) / ops.where(some, count, 1.0), 1.0)

    def of_observed(self, x: Tensor) -> Tensor:
        """Return x (..., d) with zeros where y is missing."""
        return x if self.observed is None else x * self.observed


def read_targets(
    y_true: Tensor,
    mean: Tensor,
    missing: str,
    unit: Tensor | None = None,
    weight: Tensor | None = None,
) -> Targets:
    """Return y_true as `Targets`; with missing="marginalize", NaN marks missing values.

    Missing values are replaced by the mean before anything is subtracted: NaN · 0 is NaN.
    """
    values = as_events(y_true, mean)
    if missing == "propagate":
        return Targets(values, None, unit, weight)
    missing_here = ops.isnan(values)
    observed = ops.cast(ops.logical_not(missing_here), mean.dtype)
    return Targets(ops.where(missing_here, ops.stop_gradient(mean), values), observed, unit, weight)


def product(*factors: Tensor | None) -> Tensor | None:
    """Return the product of the factors that are not None; None if all are None."""
    given = [factor for factor in factors if factor is not None]
    return functools.reduce(operator.mul, given) if given else None


def as_tensor(x: Tensor) -> Tensor:
    """Convert x to a tensor; an existing tensor is returned as is, with its mask and tag.

    Masked entries of a NumPy array become NaN, as what lies under the mask was not observed.
    """
    return x if ops.is_tensor(x) else ops.convert_to_tensor(unmasked(x))


def as_events(y_true: Tensor, mean: Tensor) -> Tensor:
    """Return y_true with an event axis and the dtype of the mean: (...) becomes (..., 1)."""
    if keras.backend.standardize_dtype(y_true.dtype) == "bool":
        warnings.warn(
            "y_true is boolean, but a multivariate normal describes continuous targets. It is "
            "treated as 0 and 1.",
            stacklevel=4,
        )
    if len(y_true.shape) == len(mean.shape) and y_true.shape[-1] is None:
        # TensorFlow knows the length at run time, and fails there if it is not d per row.
        y_true = ops.reshape(y_true, (*ops.shape(y_true)[:-1], mean.shape[-1]))
    if y_true.dtype != mean.dtype:  # in eager mode, Keras' cast is not free
        y_true = ops.cast(y_true, mean.dtype)
    return y_true if len(y_true.shape) == len(mean.shape) else y_true[..., None]


def weighted_events(
    y_true: Tensor,
    y_pred: Tensor,
    mean: Tensor,
    sample_weight: Tensor | None,
    missing: str = "propagate",
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return y_true as events, safe in rows of weight 0, and the row weights and row mask.

    Args:
        y_true: (..., d), or (...) for one target.
        y_pred: the output of the model, which carries Keras' mask.
        mean: (..., d), read from y_pred.
        sample_weight: as passed by the user.
        missing: with "marginalize", rows without any observed target get weight 0.

    Raises:
        ValueError: the weights are not one number per row.

    """
    weight = _row_weights(sample_weight, mean, "sample_weight")
    mask = _row_weights(get_keras_mask(y_pred), mean, "the mask")
    y_true = as_events(y_true, mean)
    if missing == "marginalize":
        anything = ops.cast(ops.logical_not(ops.all(ops.isnan(y_true), axis=-1)), mean.dtype)
        weight = anything if weight is None else weight * anything
    return _hide_unweighted(y_true, mean, weight, mask), weight, mask


def _row_weights(weight: Tensor | None, mean: Tensor, name: str) -> Tensor | None:
    """Return weights or a mask as one number per row (...); None stays None.

    Args:
        weight: the batch axes of the mean, or only the leading ones (each weight then applies to
            all axes that follow), optionally with a last axis of length 1.
        mean: (..., d).
        name: for the error message.

    Raises:
        ValueError: there is one number per target, or the axes do not match the batch.

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
            f"{name} has shape {shape}, but the batch shape is {batch}. Rows are weighted as a "
            f"whole, so pass one number per row, not one per target."
        )
    weight = weight[..., 0] if len(axes) < len(shape) else weight
    while len(weight.shape) < len(batch):
        weight = weight[..., None]
    return weight * ops.ones_like(mean[..., 0])


def _hide_unweighted(y_true: Tensor, mean: Tensor, *weights: Tensor | None) -> Tensor:
    """Return y_true, replaced by the mean in rows where any of the row weights (...) is 0.

    NaN · 0 is NaN, so a row of weight 0 must not hold a NaN before anything is subtracted.
    """
    for weight in weights:
        if weight is not None:
            nonzero = ops.not_equal(weight, 0)[..., None]
            y_true = ops.where(nonzero, y_true, ops.stop_gradient(mean))
    return y_true
