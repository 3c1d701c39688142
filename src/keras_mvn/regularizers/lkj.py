"""The LKJ prior on correlation matrices."""

from __future__ import annotations

from typing import Any, final

import keras

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _terms
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["LKJ"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class LKJ(CovarianceRegularizer):
    """An LKJ prior: `−(η − 1) log det C / rows`, its negative log density up to a constant.

    C is the correlation matrix; standard deviations, and therefore units, do not matter. η = 1 is
    uniform over correlation matrices; larger values concentrate around C = I, where the penalty
    is 0. −½ log det C is the mutual information of the targets (their total correlation), so the
    penalty is 2(η − 1)/rows times that, in nats. It needs no dense inverse or determinant.

    Args:
        concentration: float η ≥ 1. Below 1 neither the penalty nor a loss with it would have a
            minimum.
        rows: int ≥ 1, number of training rows over which one prior is spread, as for a single C;
            1 gives the C of every row a prior of its own.

    Raises:
        ValueError: `concentration` is below 1, or `rows` is not an integer ≥ 1.

    Source: Lewandowski, Kurowicka & Joe, "Generating random correlation matrices based on vines
    and extended onion method", Journal of Multivariate Analysis 100 (2009).

    >>> import numpy as np
    >>> from keras_mvn.covariances import Cholesky
    >>> scale, n = Cholesky().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> penalty = LKJ(2.0, rows=1)(Cholesky(), Parameters(np.zeros(2), scale, n))
    >>> float(penalty.round(4))  # −log(1 − 0.5²)
    0.2877

    """

    def __init__(self, concentration: float, rows: int) -> None:
        self.concentration = _checks.at_least(concentration, "concentration", 1.0)
        self.rows = whole(rows, "rows", "the number of training rows", 1)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """Return the penalty (...) for these parameters."""
        half_log_det = _terms.half_log_det_correlation(covariance, parameters)
        return (-2.0 * (self.concentration - 1.0) / self.rows) * half_log_det

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"concentration": self.concentration, "rows": self.rows}
