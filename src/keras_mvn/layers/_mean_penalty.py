"""The mean over rows of the head's penalty, however many calls the rows come in."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from keras import ops

from keras_mvn._core.numeric import count_rows
from keras_mvn._core.tensorflow_loops import inside_vectorized_map
from keras_mvn._core.types import Tensor

__all__ = ["MeanPenalty"]


class _Rows(NamedTuple):
    """The sum of the penalty over unmasked rows, and how many these are."""

    total: Tensor
    number: Tensor | float

    def mean(self) -> Tensor:
        """Return the mean of the penalty; 0 without rows."""
        if isinstance(self.number, float):
            return self.total / max(self.number, 1.0)
        # Keras' divide_no_nan turns float64 into float32 on PyTorch.
        return self.total / (self.number + ops.cast(ops.equal(self.number, 0), self.total.dtype))


class MeanPenalty:
    """The penalty of a head, as the losses to add for each of its calls.

    A call adds the mean over its unmasked rows. `keras.layers.TimeDistributed` calls the layer that
    it wraps once for each step, and Keras adds up the losses of all calls. There, the first step
    adds its mean, and each later one the change of the mean over all rows so far: the sum is the
    mean over all steps, as if the head had been applied to (batch, time, features).

    Args:
        shrinkage: the head's argument, for the error message.

    """

    def __init__(self, shrinkage: float | str | None) -> None:
        self._shrinkage = shrinkage
        # The tensors of a TimeDistributed live no longer than its call.
        self._so_far: weakref.WeakKeyDictionary[Any, _Rows] = weakref.WeakKeyDictionary()

    def of_call(self, penalty: Tensor, mask: Tensor | None, steps: Any | None) -> Tensor:
        """Return the loss to add.

        Args:
            penalty: (...), the penalty of each row.
            mask: (...), False for rows that do not count; None if all do.
            steps: the call of a TimeDistributed that this is one step of, or None.

        Raises:
            ValueError: TensorFlow maps the head over batches, and would drop all losses but one.

        """
        if inside_vectorized_map():
            raise ValueError(
                f"shrinkage={self._shrinkage!r} adds a loss, which tf.vectorized_map drops. Apply "
                "the MultivariateNormalHead to all batches at once, (..., features), or set "
                "shrinkage=None."
            )
        rows = _rows(penalty, mask)
        before = None if steps is None else self._so_far.get(steps)
        if before is not None:
            rows = _Rows(before.total + rows.total, before.number + rows.number)
        if steps is not None:
            self._so_far[steps] = rows
        return rows.mean() if before is None else rows.mean() - before.mean()


def _rows(penalty: Tensor, mask: Tensor | None) -> _Rows:
    if mask is None:
        return _Rows(ops.sum(penalty), count_rows(penalty[..., None]))
    kept = ops.cast(mask, penalty.dtype)
    return _Rows(ops.sum(penalty * kept), ops.sum(kept))
