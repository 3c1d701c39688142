"""How much each row counts in a recalibration: by likelihood, or no more than a bound."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions._radial_law import RadialLaw

__all__ = ["row_weights"]


def row_weights(law: RadialLaw, squared: Array, count: Array | float, robust: bool) -> Array:
    """Return the weights of rows at these squared distances, in present units: (...).

    Args:
        law: the law of the radius.
        squared: (...), squared distances of `count` targets.
        count: number of targets of each row.
        robust: bool, whether no row counts more than one at the distance that 1 % exceed;
            otherwise, weights are those of the likelihood.

    """
    found = law.bounded_pull(squared, count) if robust else law.pull(squared, count)
    return np.broadcast_to(found, np.shape(squared))
