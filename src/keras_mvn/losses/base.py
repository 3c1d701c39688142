"""What every loss shares: reading y_pred, shapes, weights, masks, the penalty, saving."""

from __future__ import annotations

import abc
from typing import Any, final

import keras
from keras import ops

from keras_mvn import regularizers
from keras_mvn._rows import as_events, as_tensor, weighted_events
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.layouts import Parameters, Reader
from keras_mvn.regularizers import CovarianceRegularizer
from keras_mvn.types import Tensor

__all__ = ["CovarianceLoss", "at_least_float32"]


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
        y_true, y_pred = as_tensor(y_true), as_tensor(y_pred)
        self.reader.check(y_true, y_pred, type(self).__name__)
        if self._follows_y_pred:
            # Keras would cast a float64 prediction to floatx here.
            self._dtype = at_least_float32(y_pred.dtype)
        mean = self.reader.mean(ops.cast(y_pred, self.dtype))
        # Keras reads the mask off y_pred itself.
        y_true, weight, _ = weighted_events(y_true, y_pred, mean, sample_weight)
        value = super().__call__(y_true, y_pred, weight)
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
