"""A smooth bound on the length of a vector: a map of all vectors into the interior of a ball."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor

__all__ = ["into_ball", "out_of_ball"]


def into_ball(x: Tensor, radius: float) -> Tensor:
    """Return x / √(1 + ‖x‖²/radius²), which is close to x near 0 and always shorter than radius."""
    xp = namespace(x)
    relative = x / radius
    return x / xp.sqrt(1.0 + xp.sum(relative * relative, axis=-1, keepdims=True))


def out_of_ball(x: Tensor, radius: float, name: str, event_size: int) -> Tensor:
    """Invert `into_ball`.

    Raises:
        ValueError: a vector in a NumPy array has length `radius` or more (tensors give NaN).

    """
    xp = namespace(x)
    relative = x / radius
    room = 1.0 - xp.sum(relative * relative, axis=-1, keepdims=True)
    if xp is np and (room <= 0.0).any():
        raise ValueError(
            f"shape_params has a Frobenius norm of {np.linalg.norm(x, axis=-1).max():.3g}, but "
            f"covariance={name!r} supports only norms below {radius:.3g} for d = {event_size}. Use "
            "'precision_cholesky', which has no bound."
        )
    return x / xp.sqrt(room)
