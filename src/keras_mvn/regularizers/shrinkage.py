"""Shrinkage of a predicted covariance towards a target."""

from __future__ import annotations

from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _terms
from keras_mvn.regularizers._ledoit_wolf import ledoit_wolf
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["Shrinkage"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class Shrinkage(CovarianceRegularizer):
    """`strength · KL(N(μ, T) ‖ N(μ, Σ))`: the prediction is drawn towards the target T.

    KL = ½ (tr(T Σ⁻¹) − d + log det Σ − log det T) ≥ 0, half of Stein's loss, 0 where Σ = T, and
    the same in any units of y. Of the two directions this is the one that adds to the likelihood
    what `strength` more observations per row, drawn from N(μ, T), would: the conjugate prior
    (`InverseWishart.from_mode` with m = strength · rows). It grows like 1/σ² when a variance
    collapses, which is how small tables overfit; the reverse grows like −log σ only, and the
    likelihood's own gain from a collapse would cancel it.

    With `target="diagonal"`, T is the prediction's own diagonal: ½ (tr C⁻¹ − d + log det C) of
    the correlation matrix C. Standard deviations are left alone, correlations shrink.

    Args:
        strength: pseudo-observations per training row, ≥ 0; 0.1 is a tenth of the likelihood's
            weight. A strength that falls like 1/n counts the target once for the whole table.
        target: "diagonal", or a symmetric positive definite T (d, d) in squared units of y;
            `from_targets` estimates one.

    Raises:
        ValueError: a negative strength, another string, T not symmetric positive definite; when
            called, a prediction of another number of targets.

    Source: James & Stein, "Estimation with quadratic loss", 4th Berkeley Symposium (1961), for
    the loss; Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices", Journal of Multivariate Analysis 88 (2004), for the target.

    >>> import numpy as np
    >>> from keras_mvn.covariances import Diagonal
    >>> parameters = Parameters(np.zeros(2), np.array([1.0, 0.5]), np.zeros(0))
    >>> penalty = Shrinkage(1.0, target=np.eye(2))
    >>> float(penalty(Diagonal(), parameters).round(4))  # ½ · 1/0.5² − ½ + log 0.5
    0.8069

    """

    def __init__(self, strength: float, target: Any = "diagonal") -> None:
        self.strength = _checks.at_least(strength, "strength", 0.0)
        self.factor = None
        self.half_log_det = 0.0
        if isinstance(target, str):
            if target != "diagonal":
                raise ValueError(
                    f"target={target!r} is not known. Expected 'diagonal' or a (d, d) covariance "
                    "matrix; Shrinkage.from_targets(y_train, strength) estimates one."
                )
            self.target: Any = target
            return
        self.factor = _checks.factor_of(target, "target")
        self.half_log_det = float(np.log(np.diagonal(self.factor)).sum())
        self.target = np.array(target, dtype=np.float64)

    @classmethod
    def from_targets(cls, y: Any, strength: float) -> Self:
        """Shrinkage towards the Ledoit–Wolf covariance of y, in float64.

        Computed on y divided by its standard deviations (1/n) and scaled back: what Ledoit and
        Wolf shrink towards, equal variances, means nothing for targets in different units. The
        variances are therefore those of y, the correlations are shrunk. It is the covariance of
        y, not of what the mean leaves; give residuals of a first model for that.

        Args:
            y: (rows, d) training targets, in their own units. Rows with a NaN are left out
                entirely: pairs of targets would not give a positive definite matrix.
            strength: as the constructor's.

        Raises:
            ValueError: y not (rows, d), infinite values, fewer than two complete rows, or a
                constant target.

        """
        return cls(strength, ledoit_wolf(y))

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """The penalty (...) of these parameters."""
        d = parameters.scale.shape[-1]
        if self.factor is None:
            trace = _terms.trace_of_inverse_correlation(covariance, parameters)
            half_log_det = _terms.half_log_det_correlation(covariance, parameters)
            return self.strength * (0.5 * (trace - d) + half_log_det)
        _checks.check_event_size(self.factor.shape[-1], d, "target")
        return self.strength * _terms.divergence_from(
            self.factor, covariance, parameters, self.half_log_det
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        target = self.target if self.factor is None else self.target.tolist()
        return {"strength": self.strength, "target": target}
