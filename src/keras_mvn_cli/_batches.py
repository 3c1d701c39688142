"""Distributions of several batches as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._gaussian import Gaussian

__all__ = ["concatenated"]


def concatenated(normals: Sequence[MultivariateNormal]) -> MultivariateNormal:
    """Distributions (n₁,), (n₂,), … of one structure and the same targets as (n₁ + n₂ + …,)."""
    parts = [normal._gaussian for normal in normals if len(normal)]
    if len(parts) == 1:
        return MultivariateNormal._of(parts[0], normals[0].target_names)
    joined = Gaussian(
        parts[0].structure,
        np.concatenate([part.mean for part in parts]),
        np.concatenate([part.scale for part in parts]),
        np.concatenate([part.shape_params for part in parts]),
    )
    return MultivariateNormal._of(joined, normals[0].target_names)
