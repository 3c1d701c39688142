"""The reduction of the losses of all rows to one number, as in Keras."""

from __future__ import annotations

import math

from keras import ops

from keras_mvn._core.keras_internals import reduce_weighted_values, scale_loss_for_distribution
from keras_mvn._core.types import Tensor

__all__ = ["reduced"]


def reduced(
    values: Tensor, weight: Tensor | None, mask: Tensor | None, reduction: str | None
) -> Tensor:
    """Reduce values with weights and a mask, all (...), as `keras.losses.Loss` does; 0 if empty.

    The plain mean is computed here: Keras counts the rows with five operations, each of which
    costs more than the sum when nothing is compiled.
    """
    if reduction in (None, "none"):
        return reduce_weighted_values(values, weight, mask, reduction)
    shape = tuple(values.shape)
    if 0 in shape:
        return ops.sum(values)  # Keras leaves an empty batch unreduced
    if weight is None and mask is None and reduction != "sum" and None not in shape:
        return scale_loss_for_distribution(ops.sum(values) * (1.0 / math.prod(shape)))
    return reduce_weighted_values(values, weight, mask, reduction)
