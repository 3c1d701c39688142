"""The layers of a head, which keep full precision in a quantized model."""

from __future__ import annotations

from typing import Any, Never, final

import keras

__all__ = ["FullPrecisionDense", "refuse_to_quantize"]


@final
class FullPrecisionDense(keras.layers.Dense):
    """A `Dense` layer that `Model.quantize` leaves out, with a warning.

    The layers of a head are small, but rounding them costs likelihood: 0.1 to 1.1 nats per row with
    4 bits (docs/training.md).
    """

    def quantize(self, *arguments: Any, **options: Any) -> Never:
        """Refuse.

        Raises:
            NotImplementedError: always; `Model.quantize` turns it into a warning.

        """
        refuse_to_quantize(f"Layer {self.name!r} of a MultivariateNormalHead")


def refuse_to_quantize(layer: str) -> Never:
    """Raise the error for a head, or for one of its layers."""
    raise NotImplementedError(
        f"{layer} is not quantized: it keeps full precision. Model.quantize quantizes the other "
        "layers of the model."
    )
