"""The L2 (ridge) penalty on the entries of a covariance, correlation or precision matrix."""

from __future__ import annotations

from typing import Any, final

import keras

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _entries
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["CovarianceL2"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class CovarianceL2(CovarianceRegularizer):
    """The L2 penalty `strength · Σ Mᵢⱼ²`: makes dependence between targets small, rarely zero.

    The sum is over all i ≠ j, so each pair counts twice; see `CovarianceL1` for M. On correlations
    the penalty is smooth and bounded. Near C = I it equals `LKJ` with concentration
    1 + 2 · strength on every row, because log det C = −½ Σ Cᵢⱼ² + … there.

    Args:
        strength: float ≥ 0, the weight of the penalty.
        on: "correlation", "covariance" (units of y⁴), "partial_correlation" or "precision"
            (units of 1/y⁴).
        off_diagonal: bool, whether to sum over i ≠ j only. False adds the squares of the diagonal.

    Raises:
        ValueError: `strength` is negative, or `on` is unknown.

    Source: van Wieringen & Peeters, "Ridge estimation of inverse covariance matrices from
    high-dimensional data", Computational Statistics & Data Analysis 103 (2016).

    >>> import numpy as np
    >>> from keras_mvn.covariances import Cholesky
    >>> scale, n = Cholesky().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> penalty = CovarianceL2(0.1)(Cholesky(), Parameters(np.zeros(2), scale, n))
    >>> float(penalty.round(6))  # 0.1 · 2 · (3/(2 · 3))²
    0.05

    """

    def __init__(self, strength: float, on: str = "correlation", off_diagonal: bool = True) -> None:
        self.strength = _checks.at_least(strength, "strength", 0.0)
        self.on = _entries.check(on)
        self.off_diagonal = bool(off_diagonal)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """Return the penalty (...) for these parameters."""
        matrix = _entries.entries(covariance, parameters, self.on, self.off_diagonal)
        return self.strength * namespace(matrix).sum(matrix * matrix, axis=(-2, -1))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"strength": self.strength, "on": self.on, "off_diagonal": self.off_diagonal}
