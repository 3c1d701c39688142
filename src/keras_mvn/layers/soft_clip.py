"""A layer that limits inputs, smoothly, to the range that was seen in training."""

from __future__ import annotations

from typing import Any, Self, final

import keras
import numpy as np
from keras import ops

from keras_mvn._core.dtypes import at_least_float32_policy
from keras_mvn._core.fences import fences
from keras_mvn._core.types import Array, Tensor

__all__ = ["SoftClip", "limits_of"]


def limits_of(model: keras.Model) -> SoftClip | None:
    """Return the layer of a model that knows the range of its inputs; None if there is none."""
    return next((layer for layer in model.layers if isinstance(layer, SoftClip)), None)


@final
@keras.saving.register_keras_serializable(package="keras_mvn.layers")
class SoftClip(keras.layers.Layer):
    """A first layer that limits each input to what training rows had, and a margin beyond.

    Between lower and upper, inputs stay as they are; beyond, x becomes
    upper + m tanh((x − upper)/m), at the lower end likewise: smooth, and never further out than the
    margin m. A network is a function of what it saw; far outside, it continues its slopes to
    anywhere: one glitch of a sensor, 1e6 where others reach 40, gets a mean and a covariance that
    mean nothing. Put it before `keras.layers.Normalization`.

    Args:
        lower: (features,), smallest inputs, in their units.
        upper: (features,), largest inputs.
        margin: (features,), positive, how far inputs can go beyond.
        **kwargs: as in `keras.layers.Layer`.

    Raises:
        ValueError: the limits have different lengths, are not finite or not in order, or a margin
            is not positive.

    >>> import numpy as np
    >>> seen = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    >>> limit = SoftClip.of(seen)  # margin: one standard deviation
    >>> np.round(np.asarray(limit(np.array([[1.5], [5.0], [1e6]], "float32"))), 3)
    array([[1.5  ],
           [4.861],
           [5.414]], dtype=float32)

    """

    def __init__(self, lower: Any, upper: Any, margin: Any, **kwargs: Any) -> None:
        super().__init__(dtype=at_least_float32_policy(kwargs.pop("dtype", None)), **kwargs)
        self.lower, self.upper, self.margin = (
            np.atleast_1d(np.asarray(x, np.float64)) for x in (lower, upper, margin)
        )
        shapes = {x.shape for x in (self.lower, self.upper, self.margin)}
        finite = all(np.isfinite(x).all() for x in (self.lower, self.upper, self.margin))
        if len(shapes) > 1 or self.lower.ndim != 1 or not finite:
            raise ValueError(
                f"SoftClip needs as many finite numbers for lower as for upper and margin, one for "
                f"each input; received shapes {[x.shape for x in (self.lower, self.upper)]} and "
                f"{self.margin.shape}."
            )
        if (self.lower > self.upper).any() or not (self.margin > 0.0).all():
            raise ValueError("SoftClip needs lower ≤ upper and margins above 0.")
        self.supports_masking = True

    @classmethod
    def of(cls, x: Any, **kwargs: Any) -> Self:
        """Return the layer for these training rows.

        Single values that are far from all others (a glitch of a sensor) do not count, nor do one
        or two numbers in up to a fifth of a column (a code such as −9999). The margin is the
        standard deviation of a column.

        Args:
            x: (rows, features) of finite numbers.
            **kwargs: as in `keras.layers.Layer`.

        """
        values = np.asarray(x, np.float64).reshape(len(x), -1)
        regular = fences(values, codes=True).regular(values)
        lower, upper = np.nanmin(regular, axis=0), np.nanmax(regular, axis=0)
        return cls.around(lower, upper, np.nanstd(regular, axis=0), **kwargs)

    @classmethod
    def around(cls, lower: Array, upper: Array, stddev: Array, **kwargs: Any) -> Self:
        """Return the layer for columns of this range, with margins of one standard deviation.

        A constant column gets next to no margin: nothing was learned from it.

        Args:
            lower: (features,), smallest inputs.
            upper: (features,), largest inputs.
            stddev: (features,), standard deviations, 0 for constant columns.
            **kwargs: as in `keras.layers.Layer`.

        """
        smallest = 1e-6 * np.maximum(np.abs(lower), 1e-30)
        return cls(lower, upper, np.maximum(stddev, smallest), **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        """Return the limited inputs, of the same shape."""
        lower, upper, margin = (
            ops.convert_to_tensor(x, dtype=self.compute_dtype)
            for x in (self.lower, self.upper, self.margin)
        )
        x = ops.cast(inputs, self.compute_dtype)
        inside = ops.minimum(ops.maximum(x, lower), upper)
        return inside + margin * ops.tanh((x - inside) / margin)

    def limited(self, x: Array) -> Array:
        """Return the limited inputs as `call` does, of a NumPy array, in float64."""
        values = np.asarray(x, np.float64)
        inside = np.clip(values, self.lower, self.upper)
        return inside + self.margin * np.tanh((values - inside) / self.margin)

    def beyond(self, x: Array) -> Array:
        """Return how far inputs are beyond the limits, in margins: (n, features); 0 within."""
        return self._excess(np.asarray(x, np.float64)) / self.margin

    def outside(self, x: Array) -> Array:
        """Return how far inputs are beyond the limits, in widths of the range: (n, features).

        0 within the range, and for a column without any.
        """
        width = self.upper - self.lower
        return self._excess(x) / np.where(width > 0.0, width, np.inf)

    def _excess(self, x: Array) -> Array:
        return np.maximum(np.maximum(x - self.upper, self.lower - x), 0.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        limits = {"lower": self.lower, "upper": self.upper, "margin": self.margin}
        return {**super().get_config(), **{name: x.tolist() for name, x in limits.items()}}
