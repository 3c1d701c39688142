"""Random errors inside a graph, shared by sampled losses and `ops.sample`."""

from __future__ import annotations

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance

__all__ = ["draw_errors"]


def draw_errors(
    structure: Covariance, scale: Tensor, shape_params: Tensor, samples: int, seed: int
) -> Tensor:
    """Return draws from N(0, Σ), the same in every batch: (samples, ..., d)."""
    shape = ops.shape(scale)
    z = keras.random.normal((samples, *shape), dtype=scale.dtype, seed=seed)
    batch = ops.zeros_like(z[..., :1])
    return scale * structure.color(shape_params + batch, z)
