"""A smooth penalty on the condition number of the correlation matrix."""

from __future__ import annotations

import math
from typing import Any, final

import keras

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _terms
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["ConditionNumber"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class ConditionNumber(CovarianceRegularizer):
    """The penalty `strength · max(0, h − h₀)`, where h bounds log κ of the correlation matrix C.

    h = log(tr C/d) + log(tr C⁻¹/d). Because tr C = d, units do not matter, and h is the logarithm
    of the targets' mean variance inflation factor. h ≥ 0, with h = 0 only for C = I. Unlike the
    gradient of an eigenvalue, h stays smooth where eigenvalues repeat. It confines the condition
    number κ between two bounds, both attained:

        exp h ≤ (κ + 1)² / 4κ    (Kantorovich)    and    √κ + 1/√κ ≤ 2 + d (exp(½ h) − 1).

    The threshold κ₀ sets h₀ = log((κ₀ + 1)²/4κ₀): the penalty is 0 for every matrix with κ ≤ κ₀,
    and where it is 0, √κ + 1/√κ ≤ 2 + d ((κ₀ + 1)/(2√κ₀) − 1). For d = 2 that means κ ≤ κ₀.

    Args:
        strength: float ≥ 0, the weight of the penalty.
        threshold: float κ₀ ≥ 1, the condition number up to which the penalty is 0.

    Raises:
        ValueError: `strength` is negative, or `threshold` is below 1.

    Source: the bounds are the Kantorovich inequality (Horn & Johnson, "Matrix Analysis", 2nd
    edition, 7.4.12) and Cauchy–Schwarz; for the goal, see Won, Lim, Kim & Rajaratnam,
    "Condition-number-regularized covariance estimation", JRSS B 75 (2013).

    >>> import numpy as np
    >>> from keras_mvn.covariances import Cholesky
    >>> scale, n = Cholesky().from_covariance(np.array([[4.0, 4.8], [4.8, 9.0]]))
    >>> parameters = Parameters(np.zeros(2), scale, n)  # correlation 0.8: κ = 1.8/0.2 = 9
    >>> float(ConditionNumber(1.0)(Cholesky(), parameters).round(4))  # log(10²/36)
    1.0217
    >>> float(ConditionNumber(1.0, threshold=9.1)(Cholesky(), parameters))
    0.0

    """

    def __init__(self, strength: float, threshold: float = 1.0) -> None:
        self.strength = _checks.at_least(strength, "strength", 0.0)
        self.threshold = _checks.at_least(threshold, "threshold", 1.0)
        # (κ₀ + 1)²/4κ₀ = (κ₀ + 2 + 1/κ₀)/4, which does not overflow for large κ₀.
        self.free = math.log((self.threshold + 2.0 + 1.0 / self.threshold) / 4.0)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """Return the penalty (...) for these parameters."""
        d = parameters.scale.shape[-1]
        trace = _terms.trace_of_inverse_correlation(covariance, parameters)
        xp = namespace(parameters.scale)
        excess = xp.log(trace / d) - self.free
        return self.strength * xp.where(excess > 0.0, excess, xp.zeros_like(excess))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"strength": self.strength, "threshold": self.threshold}
