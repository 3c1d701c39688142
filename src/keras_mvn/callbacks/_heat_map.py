"""Heat map images of correlation matrices, without a plotting library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from keras_mvn._core.types import Array

__all__ = ["heat_map"]

# Okabe & Ito's blue and vermilion, distinguishable with color vision deficiency.
_NEGATIVE, _ZERO, _POSITIVE = (0, 114, 178), (255, 255, 255), (213, 94, 0)


def heat_map(correlation: Array, size: int = 256) -> NDArray[np.uint8]:
    """Draw (d, d) numbers in [−1, 1] as a (pixels, pixels, 3) image: blue −1, white 0, orange +1.

    Args:
        correlation: (d, d).
        size: int, minimum side length in pixels; every entry is a square of whole pixels.

    >>> import numpy as np
    >>> heat_map(np.array([[1.0, -1.0], [0.0, 1.0]]), size=2)[:, :, 0]
    array([[213,   0],
           [255, 213]], dtype=uint8)

    """
    value = np.clip(correlation, -1.0, 1.0)[..., None]
    ends = np.where(value < 0, np.array(_NEGATIVE, float), np.array(_POSITIVE, float))
    image = np.array(_ZERO, float) + np.abs(value) * (ends - np.array(_ZERO, float))
    pixels = -(-size // len(correlation))
    return np.rint(image).astype(np.uint8).repeat(pixels, axis=0).repeat(pixels, axis=1)
