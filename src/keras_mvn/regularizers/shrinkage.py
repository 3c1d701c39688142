"""Shrinkage of a predicted covariance toward a target matrix."""

from __future__ import annotations

from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.covariances._ledoit_wolf import ledoit_wolf
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _terms
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["Shrinkage"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class Shrinkage(CovarianceRegularizer):
    """The penalty `strength · KL(N(μ, T) ‖ N(μ, Σ))`, which shrinks Σ toward the target T.

    KL = ½ (tr(T Σ⁻¹) − d + log det Σ − log det T) ≥ 0 is half of Stein's loss; it is 0 where
    Σ = T, and the same in any units of y. Of the two directions of KL, this one adds to the
    likelihood what `strength` more observations per row, drawn from N(μ, T), would add: it is the
    conjugate prior (`InverseWishart.from_mode` with m = strength · rows). It grows like 1/σ² when
    a variance collapses, which is how models overfit small tables; the reverse KL grows only like
    −log σ, which the likelihood's own gain from a collapse would cancel.

    With `target="diagonal"`, T is the prediction's own diagonal, and
    KL = ½ (tr C⁻¹ − d + log det C) for the correlation matrix C. Standard deviations are
    unaffected; correlations shrink.

    Args:
        strength: float ≥ 0, pseudo-observations per training row; 0.1 is a tenth of the
            likelihood's weight. With a strength proportional to 1/n, the weight of the target over
            the whole table does not depend on n.
        target: "diagonal", or a symmetric positive definite T (d, d) in squared units of y;
            `from_targets` estimates one.

    Raises:
        ValueError: `strength` is negative, `target` is another string, or T is not symmetric
            positive definite; when called, the prediction has a different number of targets.

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
        """Create a penalty that shrinks toward the Ledoit–Wolf covariance of y, in float64.

        The estimate is computed on y divided by its standard deviations (1/n), and scaled back:
        Ledoit and Wolf shrink toward equal variances, which are meaningless for targets in
        different units. So the variances are those of y, and only the correlations are shrunk.
        This is the covariance of y, not of the residuals; for that, pass residuals of a first
        model.

        Args:
            y: (rows, d) training targets, in their own units. Rows with a NaN are dropped
                entirely: pairwise estimates would not give a positive definite matrix.
            strength: see the constructor.

        Raises:
            ValueError: y is not of shape (rows, d), contains infinite values, has fewer than two
                complete rows, or has a constant target.

        """
        return cls(strength, ledoit_wolf(y))

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """Return the penalty (...) for these parameters."""
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
        """Return the constructor's arguments."""
        target = self.target if self.factor is None else self.target.tolist()
        return {"strength": self.strength, "target": target}
