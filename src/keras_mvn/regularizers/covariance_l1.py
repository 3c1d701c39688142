"""The lasso on the entries of a covariance, correlation or precision matrix."""

from __future__ import annotations

from typing import Any, final

import keras

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _entries
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["CovarianceL1"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class CovarianceL1(CovarianceRegularizer):
    """`strength · Σ |Mᵢⱼ|`, which drives relations between targets to zero.

    Over all i ≠ j, each pair counted twice. M is the correlation matrix unless `on` says
    otherwise; the two that end in "correlation" do not depend on the units of y.

    * "correlation": C. Zeros mean uncorrelated targets.
    * "covariance": Σ, in squared units of y.
    * "partial_correlation": K_ij / √(K_ii K_jj), K = Σ⁻¹. Zeros mean targets that are independent
      given all others: the graphical lasso, free of units.
    * "precision": K = Σ⁻¹ itself, in units of 1/y²: the graphical lasso as published. Meant for
      targets that were standardized, or that share a unit.

    Forms the dense matrix: O(d²) memory per row, O(d³) time for the triangular structures; for
    "partial_correlation" and "precision" O(d³) memory too.

    Args:
        strength: weight of the penalty, ≥ 0.
        on: "correlation", "covariance", "partial_correlation" or "precision".
        off_diagonal: only i ≠ j. False adds the diagonal, which shrinks the variances with
            `on="covariance"`, widens them with `on="precision"` and is a constant d otherwise.

    Raises:
        ValueError: a negative strength, or an unknown `on`.

    Source: Bien & Tibshirani, "Sparse estimation of a covariance matrix", Biometrika 98 (2011);
    Friedman, Hastie & Tibshirani, "Sparse inverse covariance estimation with the graphical
    lasso", Biostatistics 9 (2008); on partial correlations Peng, Wang, Zhou & Zhu, "Partial
    correlation estimation by joint sparse regression models", JASA 104 (2009).

    >>> import numpy as np
    >>> from keras_mvn.covariances import Cholesky
    >>> scale, n = Cholesky().from_covariance(np.array([[4.0, 3.0], [3.0, 9.0]]))
    >>> penalty = CovarianceL1(0.1)(Cholesky(), Parameters(np.zeros(2), scale, n))
    >>> float(penalty.round(6))  # 0.1 · 2 · 3/(2 · 3)
    0.1

    """

    def __init__(self, strength: float, on: str = "correlation", off_diagonal: bool = True) -> None:
        self.strength = _checks.at_least(strength, "strength", 0.0)
        self.on = _entries.check(on)
        self.off_diagonal = bool(off_diagonal)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """The penalty (...) of these parameters."""
        matrix = _entries.entries(covariance, parameters, self.on, self.off_diagonal)
        xp = namespace(matrix)
        return self.strength * xp.sum(xp.abs(matrix), axis=(-2, -1))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"strength": self.strength, "on": self.on, "off_diagonal": self.off_diagonal}
