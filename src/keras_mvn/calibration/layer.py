"""Layer after a head that recombines the errors of its prediction linearly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np
from keras import ops

from keras_mvn import covariances
from keras_mvn._core.checks import finite, lower_triangular, square
from keras_mvn._core.dtypes import at_least_float32_policy
from keras_mvn._core.targets import names_of_targets
from keras_mvn._core.types import Tensor
from keras_mvn.calibration.base import register
from keras_mvn.covariances import CovarianceLike
from keras_mvn.distributions._predicted import Predicted, predicted
from keras_mvn.layouts import _tag

__all__ = ["CovarianceMap"]


@final
@register
class CovarianceMap(keras.layers.Layer):
    """Layer that replaces Σ by Σ' = L C Cᵀ Lᵀ, L the Cholesky factor of Σ, and keeps the means.

    `MatrixScaling.apply(model)` adds it after the head. It has no trainable weights. The factor of
    a factored structure is multiplied by C, that of a factored precision by the precomputed C⁻¹;
    any other structure is first converted to its Cholesky factor. `covariance` is the structure of
    the output, for losses, metrics and `distribution`.

    Args:
        scale_tril: C, (d, d), lower triangular with a positive diagonal.
        input_covariance: covariance structure of the input, that of the head.
        layout: layout of input and output, "packed" or "student_t", as in the head.
        target_names: d names.

    Input shape: (..., 2 d + k). Output shape: (..., 2 d + k'), k' that of `covariance`. Masks are
    passed through.

    Raises:
        ValueError: scale_tril is not such a matrix, or the structure is unknown.

    >>> import numpy as np
    >>> layer = CovarianceMap([[2.0, 0.0], [0.0, 3.0]], "cholesky")
    >>> layer.distribution(layer(np.array([[0.0, 0.0, 1.0, 1.0, 0.0]]))).stddev
    array([[2., 3.]])

    """

    def __init__(
        self,
        scale_tril: Any,
        input_covariance: CovarianceLike,
        layout: str = "packed",
        target_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=at_least_float32_policy(kwargs.pop("dtype", None)), **kwargs)
        c = finite(scale_tril, "scale_tril")
        self.scale_tril = lower_triangular(square(c, "scale_tril", c.shape[-1:]))
        self.event_size = len(c)
        self.input_covariance = covariances.get(input_covariance)
        self.covariance = self.input_covariance.recombined
        self.layout = layout
        self.target_names = names_of_targets(target_names, self.event_size)
        self.supports_masking = True

    def call(self, inputs: Tensor) -> Tensor:
        """Map parameters (..., 2 d + k) to (..., 2 d + k')."""
        _tag.check(inputs, self.input_covariance, type(self).__name__, self.layout, False)
        d, width = self.event_size, self.input_covariance.packed_size(self.event_size)
        scale, shape_params = self.input_covariance.recombine(
            inputs[..., d : 2 * d], inputs[..., 2 * d : width], self.scale_tril
        )
        # Parameters that the layout appends to those of a normal stay at the end.
        y_pred = ops.concatenate(
            [inputs[..., :d], scale, shape_params, inputs[..., width:]], axis=-1
        )
        written = _tag.read(inputs)
        unit = ops.ones((d,), self.compute_dtype) if written is None else written.unit
        return _tag.tag(y_pred, _tag.Written(self.covariance, self.layout, unit))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (..., 2 d + k') for an input of shape (..., 2 d + k)."""
        *batch, width = input_shape
        assert width is not None
        more = width - self.input_covariance.packed_size(self.event_size)
        return (*batch, self.covariance.packed_size(self.event_size) + more)

    def distribution(self, y_pred: Any) -> Predicted:
        """Convert the output of `model.predict` to a batch of distributions.

        Raises:
            ValueError: y_pred has the wrong width.

        """
        return predicted(y_pred, self.covariance, self.layout, self.target_names)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "scale_tril": np.asarray(self.scale_tril).tolist(),
            "input_covariance": keras.saving.serialize_keras_object(self.input_covariance),
            "layout": self.layout,
            "target_names": self.target_names and list(self.target_names),
        }
