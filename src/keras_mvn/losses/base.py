"""What every loss shares: reading y_pred, shapes, weights, masks, the penalty, saving."""

from __future__ import annotations

import abc
import warnings
from typing import Any, final

import keras
from keras import ops

# Keras keeps masks on tensors and has no public way to read them.
from keras.src.backend.common.masking import get_keras_mask

from keras_mvn import regularizers
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.layouts import Parameters, Reader
from keras_mvn.regularizers import CovarianceRegularizer
from keras_mvn.types import Tensor

__all__ = ["CovarianceLoss", "as_events", "at_least_float32", "hide_unweighted_rows"]


class CovarianceLoss(keras.losses.Loss, abc.ABC):
    """A loss per row from y_true and the parameters in y_pred. A subclass gives `row_loss`.

    Args:
        covariance: the structure that wrote y_pred, or its name.
        from_raw: y_pred holds unconstrained numbers, to which the structure's link is applied.
        layout: "packed", "stacked" or "mean_log_variance" (see `keras_mvn.layouts`).
        regularizer: a penalty from `keras_mvn.regularizers`.
        reduction: as in `keras.losses.Loss`.
        name: as in `keras.losses.Loss`.
        dtype: None computes in the dtype of y_pred, float32 at least.

    """

    def __init__(
        self,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        regularizer: CovarianceRegularizer | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._follows_y_pred = dtype is None
        self.reader = Reader(covariance, from_raw, layout)
        self.regularizer = regularizers.get(regularizer)

    @abc.abstractmethod
    def row_loss(self, y_true: Tensor, parameters: Parameters) -> Tensor:
        """The loss of each row (...), y_true of shape (..., d)."""

    @final
    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """The loss: checked, weighted, masked and reduced as Keras does.

        Raises:
            ValueError: y_true and y_pred don't belong together (shapes, structure).

        """
        y_true, y_pred = _as_tensor(y_true), _as_tensor(y_pred)
        _warn_of_booleans(y_true)
        self.reader.check(y_true, y_pred, type(self).__name__)
        if self._follows_y_pred:
            # Keras would cast a float64 prediction to floatx here.
            self._dtype = at_least_float32(y_pred.dtype)
        mask = get_keras_mask(y_pred)
        if sample_weight is not None or mask is not None:
            mean = self.reader.decode(ops.cast(y_pred, self.dtype)).mean
            y_true = hide_unweighted_rows(y_true, mean, sample_weight, mask)
        value = super().__call__(y_true, y_pred, sample_weight)
        if self.reduction not in (None, "none") and tuple(value.shape) == (0,):
            return ops.sum(value)  # Keras leaves an empty batch unreduced
        return value

    @final
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each row (...)."""
        parameters = self.reader.decode(y_pred)
        values = self.row_loss(as_events(y_true, parameters.mean), parameters)
        if self.regularizer is not None:
            values = values + self.regularizer(self.reader.covariance, parameters)
        return values

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; dtype, which Keras leaves out, among them."""
        penalty = self.regularizer
        return {
            **super().get_config(),
            **self.reader.get_config(),
            "regularizer": penalty and keras.saving.serialize_keras_object(penalty),
            "dtype": None if self._follows_y_pred else self.dtype,
        }


def at_least_float32(dtype: Any) -> str:
    """float64 for float64, float32 for everything else."""
    name = "float32" if dtype is None else keras.backend.standardize_dtype(dtype)
    return "float64" if name == "float64" else "float32"


def as_events(y_true: Tensor, mean: Tensor) -> Tensor:
    """y_true with an event axis, in the dtype of the mean: (...) becomes (..., 1)."""
    y_true = ops.cast(y_true, mean.dtype)
    return y_true if len(y_true.shape) == len(mean.shape) else y_true[..., None]


def hide_unweighted_rows(
    y_true: Tensor, mean: Tensor, sample_weight: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Replace y_true by the mean in rows of weight 0 and in masked rows.

    NaN · 0 is NaN: a row that weighs nothing must not hold a NaN before anything is subtracted.
    """
    y_true = as_events(y_true, mean)
    weighs = ops.ones_like(mean[..., :1], dtype="bool")
    for weight in (sample_weight, mask):
        if weight is None:
            continue
        nonzero = ops.not_equal(ops.convert_to_tensor(weight), 0)
        if len(nonzero.shape) == len(mean.shape) and nonzero.shape[-1] == 1:
            nonzero = nonzero[..., 0]
        while len(nonzero.shape) < len(mean.shape):
            nonzero = nonzero[..., None]
        weighs = ops.logical_and(weighs, nonzero)
    return ops.where(weighs, y_true, ops.stop_gradient(mean))


def _as_tensor(x: Tensor) -> Tensor:
    """A tensor; one that is a tensor already keeps its identity, and with it mask and tag."""
    return x if ops.is_tensor(x) else ops.convert_to_tensor(x)


def _warn_of_booleans(y_true: Tensor) -> None:
    if keras.backend.standardize_dtype(y_true.dtype) == "bool":
        warnings.warn(
            "y_true is boolean; a multivariate normal describes continuous targets. It is read "
            "as 0 and 1.",
            stacklevel=3,
        )
