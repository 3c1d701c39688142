"""The inverse-Wishart prior on covariance matrices."""

from __future__ import annotations

from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _terms
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["InverseWishart"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class InverseWishart(CovarianceRegularizer):
    """An inverse-Wishart prior: `(½ m log det Σ + ½ tr(Ψ Σ⁻¹)) / rows`, m = ν + d + 1.

    The penalty is the negative log density, up to the constant that makes it 0 at the mode Ψ/m.
    It equals (m/rows) KL(N(μ, Ψ/m) ‖ N(μ, Σ)) and does not depend on units as long as Ψ is given
    in those of y. Summed over a training set, it has the weight of m pseudo-observations with
    scatter matrix Ψ about the mean, spread evenly over the rows. A variance is kept from
    collapsing by a term in 1/σ², which outweighs the −log σ that the likelihood gains.

    Args:
        degrees_of_freedom: float, ν > d − 1.
        scale_matrix: Ψ (d, d), symmetric positive definite, in squared units of y.
        rows: int ≥ 1, number of training rows over which the prior is spread; 1 gives every row
            its own prior.

    Raises:
        ValueError: Ψ is not symmetric positive definite, ν ≤ d − 1, or `rows` is not an integer
            ≥ 1; when called, the prediction has a different number of targets.

    Source: Gelman et al., "Bayesian Data Analysis", 3rd edition (2013), section 3.6.

    >>> import numpy as np
    >>> from keras_mvn.covariances import Diagonal
    >>> penalty = InverseWishart(7, 10 * np.eye(2), rows=1)  # m = 10, mode I
    >>> parameters = Parameters(np.zeros(2), np.array([1.0, 0.5]), np.zeros(0))
    >>> float(penalty(Diagonal(), parameters).round(4))  # 10 · (½ · 1/0.5² − ½ + log 0.5)
    8.0685

    """

    def __init__(self, degrees_of_freedom: float, scale_matrix: Any, rows: int) -> None:
        self.factor = _checks.factor_of(scale_matrix, "scale_matrix")
        d = self.factor.shape[-1]
        self.scale_matrix = np.array(scale_matrix, dtype=np.float64)
        self.degrees_of_freedom = _checks.at_least(degrees_of_freedom, "degrees_of_freedom", 0.0)
        if not self.degrees_of_freedom > d - 1:
            raise ValueError(
                f"degrees_of_freedom={degrees_of_freedom!r} must be above d − 1 = {d - 1} for a "
                f"scale_matrix of {d} targets. For a weaker prior, increase rows instead."
            )
        self.rows = whole(rows, "rows", "the number of training rows", 1)
        self.pseudo_observations = self.degrees_of_freedom + d + 1
        self.mode_factor = self.factor / np.sqrt(self.pseudo_observations)
        self.half_log_det = float(np.log(np.diagonal(self.mode_factor)).sum())

    @classmethod
    def from_mode(cls, mode: Any, pseudo_observations: float, rows: int) -> Self:
        """Create the prior with this mode and the weight of m rows: ν = m − d − 1, Ψ = m mode.

        Args:
            mode: (d, d), the covariance to shrink toward, in squared units of y.
            pseudo_observations: float, m > 2 d, the number of rows with the weight of the prior.
            rows: int ≥ 1, number of training rows over which the prior is spread.

        Raises:
            ValueError: the same as for the constructor.

        """
        matrix = np.array(mode, dtype=np.float64)
        m = _checks.at_least(pseudo_observations, "pseudo_observations", 0.0)
        if not m > 2 * len(matrix):
            raise ValueError(
                f"pseudo_observations={pseudo_observations!r} must be above 2 d = "
                f"{2 * len(matrix)}; with fewer, the prior is not a density. For a weaker prior, "
                "increase rows instead, or use Shrinkage, which takes any strength ≥ 0."
            )
        return cls(m - len(matrix) - 1, m * matrix, rows)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """Return the penalty (...) for these parameters."""
        _checks.check_event_size(
            self.mode_factor.shape[-1], parameters.scale.shape[-1], "scale_matrix"
        )
        divergence = _terms.divergence_from(
            self.mode_factor, covariance, parameters, self.half_log_det
        )
        return (self.pseudo_observations / self.rows) * divergence

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "degrees_of_freedom": self.degrees_of_freedom,
            "scale_matrix": self.scale_matrix.tolist(),
            "rows": self.rows,
        }
