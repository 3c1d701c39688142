"""The likelihood of a multivariate Student's t with balanced weights for the location."""

from __future__ import annotations

from typing import final

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._student_t import StudentTLoss
from keras_mvn.losses.balanced_negative_log_likelihood import balanced_gradient

__all__ = ["BalancedStudentT"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class BalancedStudentT(StudentTLoss):
    """The NLL of a Student's t, with errors of the location weighted as the balanced loss does.

    The likelihood's gradient of the location is −w Σ⁻¹ r, with r = y − μ and the row's weight
    w = (ν + d)/(ν + q), q the squared distance of the row: the further out, the less it pulls.
    This loss keeps w, and replaces Σ⁻¹ by the weights of `BalancedNegativeLogLikelihood`, halfway
    between the likelihood's and equal ones:

        ∂/∂μᵢⱼ = −3 wᵢ rᵢⱼ / (sᵢⱼ s̄ⱼ),   sᵢⱼ² = (Σᵢ)ⱼⱼ,   s̄ⱼ = the mean of sᵢⱼ over the batch.

    Scale matrix and ν learn from the likelihood. Where errors are symmetric about μ, the expected
    gradient is 0 there, whatever the weights, so the location converges to the center of the
    errors. With ν = ∞, this is `BalancedNegativeLogLikelihood`.

    The value is the NLL in nats, so `val_loss` is comparable with that of `StudentT`, whose
    arguments and errors it shares.

    >>> import numpy as np
    >>> loss = BalancedStudentT(4.0, covariance="diagonal")
    >>> round(float(loss(np.array([[3.0]]), np.array([[0.0, 2.0]]))), 4)  # scipy.stats.t(4, 0, 2)
    2.7897

    """

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of each row (...), with the balanced gradient of the location."""
        found = elliptical(
            self.reader.covariance,
            targets,
            parameters,
            fixed_mean=True,
            variance=True,
            fused=self.fused,
        )
        nu = self.as_read(found, parameters).degrees_of_freedom
        count = targets.observed_count()
        assert nu is not None  # from `decode`
        weight = ops.stop_gradient((nu + count) / (nu + found.squared_mahalanobis))
        value = self.value(found, parameters, targets)
        return value + balanced_gradient(found, targets, weight)
