"""An embedding of numbers by trained waves, for functions that plain layers learn slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np
from keras import ops

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Tensor

__all__ = ["PeriodicEmbedding"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.layers")
class PeriodicEmbedding(keras.layers.Layer):
    """An embedding of each input by waves of trained frequencies, followed by a layer of its own.

    For each standardized input x, with its own frequencies c and weights W, b,

        e(x) = gelu(W [cos 2πc₁x, …, cos 2πc_k x, sin 2πc₁x, …, sin 2πc_k x] + b).

    Dense layers learn smooth functions first, and steps, coordinates and counts late or never,
    where trees do well; waves make these as easy to learn. With one smooth input, they cost rather
    than give: compare both on held-out rows. Put it after `keras.layers.Normalization`; the output
    holds the inputs themselves as well.

    Args:
        units: int, size of the embedding of each input.
        frequencies: int, k, the number of waves for each input.
        scale: float, the standard deviation of the initial frequencies, per standard deviation of
            the input. The larger, the rougher the functions that are learned first.
        inputs: positions of the inputs to embed; None for all. Those that have two values, such as
            indicators of categories, gain nothing.
        **kwargs: as in `keras.layers.Layer`.

    Raises:
        ValueError: units or frequencies is not a positive whole number, scale is not positive, or
            inputs are no positions in the last axis.

    Source: Gorishniy, Rubachev & Babenko, "On embeddings for numerical features in tabular deep
    learning", NeurIPS 2022 (PLR).

    >>> import numpy as np
    >>> PeriodicEmbedding(units=4)(np.zeros((5, 3), "float32")).shape[1]  # 3 inputs, 3 × 4 numbers
    15

    """

    def __init__(
        self,
        units: int = 8,
        frequencies: int = 16,
        scale: float = 0.3,
        inputs: Sequence[int] | np.ndarray | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = whole(units, "units", "the size of the embedding of an input", 1)
        self.frequencies = whole(frequencies, "frequencies", "the number of waves", 1)
        if not 0.0 < scale < np.inf:
            raise ValueError(f"scale={scale!r} must be a positive number.")
        self.scale = float(scale)
        self.inputs = (
            None if inputs is None else [whole(i, "inputs", "positions", 0) for i in inputs]
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create frequencies and layers for each of the inputs, (rows, features)."""
        features = input_shape[-1]
        if len(input_shape) != 2 or features is None:
            raise ValueError(
                f"PeriodicEmbedding takes inputs of shape (rows, features); received {input_shape}."
            )
        if self.inputs is not None:
            if len({i for i in self.inputs if i < features}) < len(self.inputs):
                raise ValueError(
                    f"inputs={self.inputs} must be different positions below {features}."
                )
            features = len(self.inputs)
        waves, units = self.frequencies, self.units
        self.rates = self.add_weight(
            name="rates",
            shape=(features, waves),
            initializer=keras.initializers.RandomNormal(stddev=self.scale),
        )
        limit = (2 * waves) ** -0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(
            name="kernel", shape=(features, 2 * waves, units), initializer=uniform
        )
        self.bias = self.add_weight(name="bias", shape=(features, units), initializer=uniform)

    def call(self, inputs: Tensor) -> Tensor:
        """Return the inputs and the embeddings: (rows, features + embedded inputs · units)."""
        if self.inputs == []:
            return inputs
        chosen = inputs if self.inputs is None else ops.take(inputs, self.inputs, axis=1)
        angle = (2.0 * np.pi) * chosen[:, :, None] * self.rates
        waves = ops.concatenate([ops.cos(angle), ops.sin(angle)], axis=-1)
        # A product per input: features first, as batched products want it.
        embedded = ops.matmul(ops.transpose(waves, (1, 0, 2)), self.kernel)
        embedded = ops.gelu(ops.transpose(embedded, (1, 0, 2)) + self.bias, approximate=False)
        flat = ops.reshape(embedded, (-1, embedded.shape[1] * self.units))
        return ops.concatenate([inputs, flat], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        rows, features = input_shape
        if features is None:
            return rows, None
        embedded = features if self.inputs is None else len(self.inputs)
        return rows, features + embedded * self.units

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"units": self.units, "frequencies": self.frequencies, "scale": self.scale}
        return {**super().get_config(), **own, "inputs": self.inputs}
