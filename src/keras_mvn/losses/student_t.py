"""The negative log-likelihood of a multivariate Student's t, for data with outliers."""

from __future__ import annotations

from typing import final

import keras

from keras_mvn._core.types import Tensor
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._student_t import StudentTLoss

__all__ = ["StudentT"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class StudentT(StudentTLoss):
    """The negative log-likelihood of a multivariate Student's t, −log t_ν(y; μ, Σ), in nats.

    −log p = log Γ(ν/2) − log Γ((ν + d)/2) + (d/2) log(νπ) + ½ log det Σ
             + ((ν + d)/2) log(1 + ‖z‖²/ν),   z = Σ^(−½)(y − μ).

    For large residuals, it grows only logarithmically. Σ is Student's scale matrix; the covariance
    is ν/(ν − 2) Σ. The pull of an outlier on mean and covariance is bounded, whereas under a
    normal likelihood it grows with the square of its distance. ν → ∞ gives the normal
    distribution.

    With a fixed ν, y_pred is the same as for any other loss, and code that reads it as a normal
    distribution reads N(μ, Σ). With "learned", the head has `degrees_of_freedom` (a fixed number,
    "constant" or "per_row"), y_pred has one more column, which this loss reads, and
    `head.distribution` is a `MultivariateStudentT`. Every other reader rejects y_pred unless given
    `layout="student_t"`: then `keras_mvn.ops`, the metrics, `EnergyScore`, `CRPS` and
    `VariogramScore` read the Student's t, and the losses for normals read the normal distribution
    with its mean and covariance.

    Args:
        degrees_of_freedom: float, ν > 2; or "learned", for the ν that the head writes.
        covariance: as in `NegativeLogLikelihood`.
        **kwargs: the other arguments of `NegativeLogLikelihood`; "learned" implies `layout`.

    Raises:
        ValueError: ν ≤ 2, for which there is no covariance; or as for `NegativeLogLikelihood`.

    Source: Lange, Little & Taylor, "Robust statistical modeling using the t distribution", JASA 84
    (1989).

    >>> import numpy as np
    >>> loss = StudentT(4.0, covariance="diagonal")
    >>> round(float(loss(np.array([[3.0]]), np.array([[0.0, 2.0]]))), 4)  # scipy.stats.t(4, 0, 2)
    2.7897

    """

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of the observed targets of each row (...)."""
        found = elliptical(self.reader.covariance, targets, parameters, fused=self.fused)
        return self.value(found, parameters, targets)
