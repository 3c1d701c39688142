"""Type aliases for tensors and arrays, and the notation used in all docstrings.

| name | meaning | shape |
| --- | --- | --- |
| `...` | batch axes, any number of them | |
| `d` | number of targets (`event_size`) | |
| `k` | length of `shape_params` | |
| `mean` | location μ, in the units of y | (..., d) |
| `scale` | positive scales s, in the units of y | (..., d) |
| `shape_params` | packed dimensionless parameters of the shape matrix R | (..., k) |
| `u` | scaled residual (y − mean) / scale | (..., d) |
| `z` | whitened residual, standard normal under the model | (..., d) |
| `half_log_det` | in `whiten`: ½ log det R | (...) |
| `half_log_det` | elsewhere: ½ log det Σ = Σ log scale + ½ log det R | (...) |
| `scale_tril` | lower Cholesky factor L, Σ = L Lᵀ | (..., d, d) |
| `precision_tril` | lower factor P of the precision, Σ⁻¹ = Pᵀ P | (..., d, d) |

Every covariance is Σ = S R S with S = diag(scale): a change of units affects only mean and scale.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Tensor"]

Tensor: TypeAlias = Any
"""A tensor of the active Keras backend, or a NumPy array."""

Array: TypeAlias = NDArray[np.float64]
"""A NumPy array of float64."""
