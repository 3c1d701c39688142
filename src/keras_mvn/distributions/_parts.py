"""The elliptical parts of a distribution, by which scores are computed in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from keras_mvn._core.types import Array
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions._radial_law import RadialLaw

__all__ = ["Part"]


@final
@dataclass(frozen=True)
class Part:
    """One of the elliptical distributions that a batch mixes."""

    log_weight: Array
    """The logarithm of its weight in each distribution: (...)."""
    gaussian: Gaussian
    """Its location and scale matrix."""
    law: RadialLaw
    """What else distinguishes it from a normal."""
