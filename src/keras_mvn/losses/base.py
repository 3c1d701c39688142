"""What every loss shares: reading y_pred, shapes, weights, masks, gaps, the penalty, saving."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, final

import keras
from keras import ops

from keras_mvn import regularizers
from keras_mvn._core.checks import finite
from keras_mvn._core.dtypes import at_least_float32
from keras_mvn._core.keras_internals import get_keras_mask, in_symbolic_scope, set_keras_mask
from keras_mvn._core.targets import checked_missing
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.layouts import Parameters, Reader, _tag
from keras_mvn.layouts._y_true import Targets, as_tensor, product, read_targets, weighted_events
from keras_mvn.losses._reduction import reduced
from keras_mvn.regularizers import CovarianceRegularizer

__all__ = ["CovarianceLoss", "UnitFreeLoss"]


class CovarianceLoss(keras.losses.Loss, abc.ABC):
    """A loss per row from y_true and the parameters in y_pred. A subclass gives `row_loss`.

    Args:
        covariance: the structure that wrote y_pred, or its name.
        from_raw: y_pred holds unconstrained numbers, to which the structure's link is applied.
        layout: "packed", "student_t", "stacked" or "mean_log_variance" (see `keras_mvn.layouts`).
        missing: what NaN in y_true does: "propagate" makes the loss NaN, "marginalize" reads it as
            "not observed" and takes the marginal distribution of what was observed in that row.
        regularizer: a penalty from `keras_mvn.regularizers`.
        fused: None takes a fast kernel where there is one (`keras_mvn.kernels`), True raises where
            there is none, False takes the reference.
        reduction: as in `keras.losses.Loss`.
        name: as in `keras.losses.Loss`.
        dtype: None computes in the dtype of y_pred, float32 at least.

    """

    has_kernel: ClassVar[bool] = False
    """Whether `row_loss` can take a kernel of `keras_mvn.kernels`; else fused=True is refused."""

    def __init__(
        self,
        covariance: CovarianceLike = DEFAULT,
        from_raw: bool = False,
        layout: str = "packed",
        missing: str = "propagate",
        regularizer: CovarianceRegularizer | None = None,
        fused: bool | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._follows_y_pred = dtype is None
        self.reader = Reader(covariance, from_raw, layout)
        self.missing = checked_missing(missing, "propagate")
        self.regularizer = regularizers.get(regularizer)
        self.fused = self._checked_fused(fused)

    def _checked_fused(self, fused: bool | None) -> bool | None:
        if fused is not None and not isinstance(fused, bool):
            raise ValueError(f"fused={fused!r} must be None, True or False.")
        if fused is True and not self.has_kernel:
            raise ValueError(
                f"fused=True: there is no kernel for {type(self).__name__}, only the reference. "
                "Leave fused=None."
            )
        return fused

    @abc.abstractmethod
    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """The loss of each row (...)."""

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
        y_pred = _cast_with_attributes(y_pred, self.dtype)
        with keras.name_scope(self.name):
            parameters = self.decode(y_pred)
            y_true, weight, mask = weighted_events(
                y_true, y_pred, parameters.mean, sample_weight, self.missing
            )
            values = self._rows(y_true, y_pred, parameters, product(weight, mask))
            return reduced(values, weight, mask, self.reduction)

    @final
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each row (...)."""
        return self._rows(y_true, y_pred, self.decode(y_pred), None)

    def _rows(
        self, y_true: Tensor, y_pred: Tensor, parameters: Parameters, weight: Tensor | None
    ) -> Tensor:
        targets = read_targets(y_true, parameters.mean, self.missing, self.unit(y_pred), weight)
        values = self.row_loss(targets, parameters)
        if self.regularizer is not None:
            values = values + self.regularizer(self.reader.covariance, parameters)
        return values

    def decode(self, y_pred: Tensor) -> Parameters:
        """What `row_loss` gets as parameters."""
        return self.reader.decode(y_pred)

    def unit(self, y_pred: Tensor) -> Tensor | None:
        """The standard deviations of y (d,), for losses that ask for them."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; dtype, which Keras leaves out, among them."""
        penalty = self.regularizer
        return {
            **super().get_config(),
            **self.reader.get_config(),
            "missing": self.missing,
            "regularizer": penalty and keras.saving.serialize_keras_object(penalty),
            "fused": self.fused,
            "dtype": None if self._follows_y_pred else self.dtype,
        }


class UnitFreeLoss(CovarianceLoss):
    """A loss that weighs targets against each other, and must not depend on their units to do so.

    Such a loss measures errors in the standard deviations of y. A head that was adapted hands
    them over with y_pred; elsewhere they are an argument.

    Args:
        covariance: as in `CovarianceLoss`.
        target_scale: (d,) standard deviations of the targets, or one number for all. None takes
            them from the head that wrote y_pred; for `from_raw=True` and the layouts of
            hand-written models, which expect standardized targets, None is 1.
        **kwargs: the other arguments of `CovarianceLoss`.

    """

    def __init__(
        self, covariance: CovarianceLike = DEFAULT, target_scale: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(covariance, **kwargs)
        self.target_scale = _checked_scale(target_scale)

    @final
    def unit(self, y_pred: Tensor) -> Tensor:
        """The standard deviations of y (d,).

        Raises:
            ValueError: they are not known: y_pred does not come straight from a head.

        """
        if self.target_scale is not None:
            return ops.convert_to_tensor(self.target_scale, dtype=self.dtype)
        written = _tag.read(y_pred)
        if written is not None:
            return ops.cast(ops.convert_to_tensor(written.unit), self.dtype)
        if in_symbolic_scope():  # Keras asks for shapes, with tensors that come from nowhere
            return ops.ones((1,), dtype=self.dtype)
        if self.reader.from_raw or not self.reader.layout.of_a_head:
            return ops.ones((1,), dtype=self.dtype)
        raise ValueError(
            f"{type(self).__name__} measures errors in the standard deviations of the targets. "
            "y_pred does not come straight from a MultivariateNormalHead, which would tell them; "
            f"pass {type(self).__name__}(target_scale=y_train.std(axis=0))."
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "target_scale": self.target_scale}


def _checked_scale(target_scale: Any) -> float | list[float] | None:
    if target_scale is None:
        return None
    scale = finite(target_scale, "target_scale")
    if scale.ndim > 1 or not (scale > 0).all():
        raise ValueError(
            f"target_scale={target_scale!r} must be positive: one number, or one per target."
        )
    return scale.tolist()


def _cast_with_attributes(y_pred: Tensor, dtype: str) -> Tensor:
    """y_pred in this dtype, with the mask and the tag that Keras' own cast would lose."""
    if keras.backend.standardize_dtype(y_pred.dtype) == dtype:
        return y_pred
    cast = ops.cast(y_pred, dtype)
    mask, written = get_keras_mask(y_pred), _tag.read(y_pred)
    if mask is not None:
        set_keras_mask(cast, mask)
    if written is not None:
        _tag.tag(cast, written)
    return cast
