"""The base classes of losses: y_pred, shapes, weights, masks, missing values, penalty, saving."""

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
    """A loss per row from y_true and the parameters in y_pred; subclasses implement `row_loss`.

    Args:
        covariance: the covariance structure that wrote y_pred, or its name.
        from_raw: bool, whether y_pred holds unconstrained numbers, to which the structure's link
            is applied.
        layout: "packed", "student_t", "stacked" or "mean_log_variance" (see `keras_mvn.layouts`).
        missing: meaning of NaN in y_true: with "propagate", the loss becomes NaN; "marginalize"
            treats NaN as missing and uses the marginal distribution of the targets observed in
            that row.
        regularizer: a penalty from `keras_mvn.regularizers`.
        fused: None uses a fast kernel where one exists (`keras_mvn.kernels`), True raises an error
            where none exists, False uses the reference implementation.
        reduction: as in `keras.losses.Loss`.
        name: as in `keras.losses.Loss`.
        dtype: None computes in the dtype of y_pred, at least float32.

    """

    has_kernel: ClassVar[bool] = False
    """Whether `row_loss` can use a kernel of `keras_mvn.kernels`; else fused=True is an error."""

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
                f"fused=True: there is no kernel for {type(self).__name__}, only the reference "
                "implementation. Use fused=None."
            )
        return fused

    @abc.abstractmethod
    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return the loss of each row (...)."""

    @final
    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss, with checks; weights, masks and reduction are applied as in Keras.

        Raises:
            ValueError: y_true and y_pred do not match (shapes, structure).

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
        """Return the loss of each row (...)."""
        return self._rows(y_true, y_pred, self.decode(y_pred), None)

    def _rows(
        self, y_true: Tensor, y_pred: Tensor, parameters: Parameters, weight: Tensor | None
    ) -> Tensor:
        targets = read_targets(y_true, parameters.mean, self.missing, self.unit(y_pred), weight)
        values = self.row_loss(targets, parameters)
        if self.regularizer is not None:
            penalties = [
                self.regularizer(self.reader.covariance, one) for one in parameters.components
            ]
            values = values + sum(penalties[1:], penalties[0]) / len(penalties)
        return values

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters that are passed to `row_loss`."""
        return self.reader.decode(y_pred)

    def unit(self, y_pred: Tensor) -> Tensor | None:
        """Return the standard deviations of y (d,), or None if the loss does not need them."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, including dtype, which Keras leaves out."""
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
    """A loss that weights targets against each other, independently of their units.

    Such a loss measures errors in standard deviations of y. A head that was adapted provides them
    with y_pred; otherwise they are an argument.

    Args:
        covariance: as in `CovarianceLoss`.
        target_scale: (d,), standard deviations of the targets, or one number for all. None takes
            them from the head that wrote y_pred; with `from_raw=True` and with the layouts of
            hand-written models, which expect standardized targets, None means 1.
        **kwargs: the other arguments of `CovarianceLoss`.

    """

    def __init__(
        self, covariance: CovarianceLike = DEFAULT, target_scale: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(covariance, **kwargs)
        self.target_scale = _checked_scale(target_scale)

    @final
    def unit(self, y_pred: Tensor) -> Tensor:
        """Return the standard deviations of y (d,).

        Raises:
            ValueError: they are unknown, because y_pred does not come straight from a head.

        """
        if self.target_scale is not None:
            return ops.convert_to_tensor(self.target_scale, dtype=self.dtype)
        written = _tag.read(y_pred)
        if written is not None:
            return ops.cast(ops.convert_to_tensor(written.unit), self.dtype)
        if in_symbolic_scope():  # Keras infers shapes, with tensors that come from no layer
            return ops.ones((1,), dtype=self.dtype)
        if self.reader.from_raw or not self.reader.layout.of_a_head:
            return ops.ones((1,), dtype=self.dtype)
        raise ValueError(
            f"{type(self).__name__} measures errors in standard deviations of the targets. y_pred "
            "does not come straight from a MultivariateNormalHead, which would provide them; "
            f"pass {type(self).__name__}(target_scale=y_train.std(axis=0))."
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
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
    """Return y_pred in this dtype, with the mask and the tag that Keras' own cast would lose."""
    if keras.backend.standardize_dtype(y_pred.dtype) == dtype:
        return y_pred
    cast = ops.cast(y_pred, dtype)
    mask, written = get_keras_mask(y_pred), _tag.read(y_pred)
    if mask is not None:
        set_keras_mask(cast, mask)
    if written is not None:
        _tag.tag(cast, written)
    return cast
