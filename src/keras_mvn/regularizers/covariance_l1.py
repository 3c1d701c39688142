"""The L1 (lasso) penalty on the entries of a covariance, correlation or precision matrix."""

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
    """The L1 penalty `strength · Σ |Mᵢⱼ|`, which drives dependence between targets to zero.

    The sum is over all i ≠ j, so each pair counts twice. `on` selects the matrix M, by default the
    correlation matrix; the two options that end in "correlation" do not depend on the units of y.

    * "correlation": C. Zeros mean uncorrelated targets.
    * "covariance": Σ, in squared units of y.
    * "partial_correlation": K_ij / √(K_ii K_jj), K = Σ⁻¹. Zeros mean that two targets are
      independent given all others: the graphical lasso, free of units.
    * "precision": K = Σ⁻¹ itself, in units of 1/y²: the graphical lasso as published. Meant for
      targets that are standardized or share a unit.

    The dense matrix is formed: O(d²) memory per row, O(d³) time for the triangular structures;
    "partial_correlation" and "precision" also need O(d³) memory.

    Args:
        strength: float ≥ 0, the weight of the penalty.
        on: "correlation", "covariance", "partial_correlation" or "precision".
        off_diagonal: bool, whether to sum over i ≠ j only. False adds the diagonal, which shrinks
            the variances with `on="covariance"`, increases them with `on="precision"`, and is a
            constant d otherwise.

    Raises:
        ValueError: `strength` is negative, or `on` is unknown.

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
        """Return the penalty (...) for these parameters."""
        matrix = _entries.entries(covariance, parameters, self.on, self.off_diagonal)
        xp = namespace(matrix)
        return self.strength * xp.sum(xp.abs(matrix), axis=(-2, -1))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"strength": self.strength, "on": self.on, "off_diagonal": self.off_diagonal}
