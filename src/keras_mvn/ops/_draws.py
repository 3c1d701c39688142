"""Random errors inside a graph, shared by sampled losses and `ops.sample`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mvn._core.gamma_draws import log_gamma_draws
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance

__all__ = ["draw_errors", "draw_stretches"]

_STEP = 0x9E3779B9
"""Added to an integer seed, for draws that are independent of those of the seed itself."""


def draw_errors(
    structure: Covariance, scale: Tensor, shape_params: Tensor, samples: int, seed: Any
) -> Tensor:
    """Return draws from N(0, Σ), the same in every batch: (samples, ..., d)."""
    shape = ops.shape(scale)
    z = keras.random.normal((samples, *shape), dtype=scale.dtype, seed=seed)
    batch = ops.zeros_like(z[..., :1])
    return scale * structure.color(shape_params + batch, z)


def draw_stretches(nu: Tensor, samples: int, seed: Any) -> Tensor:
    """Return draws of √V, 1/V a gamma variable with shape and rate ν/2: (samples, ...).

    With the same seed, they are independent of `draw_errors`.
    """
    seeds = _later(seed, 1), _later(seed, 2)
    return ops.exp(-0.5 * log_gamma_draws(0.5 * nu, samples, seeds))


def _later(seed: Any, steps: int) -> Any:
    """Return another seed, if this one is an integer; a generator gives new draws by itself."""
    return (seed + steps * _STEP) % 2**32 if isinstance(seed, int) else seed
