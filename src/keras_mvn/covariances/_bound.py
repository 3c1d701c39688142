"""A smooth bound on the length of a vector: all of space onto the inside of a ball."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor

__all__ = ["into_ball", "out_of_ball"]


def into_ball(x: Tensor, radius: float) -> Tensor:
    """x / √(1 + ‖x‖²/radius²): x near 0, shorter than `radius` everywhere."""
    xp = namespace(x)
    relative = x / radius
    return x / xp.sqrt(1.0 + xp.sum(relative * relative, axis=-1, keepdims=True))


def out_of_ball(x: Tensor, radius: float, name: str, event_size: int) -> Tensor:
    """The inverse of `into_ball`.

    Raises:
        ValueError: NumPy arrays of length `radius` or more (NaN for tensors).

    """
    xp = namespace(x)
    relative = x / radius
    room = 1.0 - xp.sum(relative * relative, axis=-1, keepdims=True)
    if xp is np and (room <= 0.0).any():
        raise ValueError(
            f"shape_params has a Frobenius norm of {np.linalg.norm(x, axis=-1).max():.3g}, beyond "
            f"what covariance={name!r} can emit for d = {event_size} ({radius:.3g}). Use "
            "'precision_cholesky', which has no bound."
        )
    return x / xp.sqrt(room)
