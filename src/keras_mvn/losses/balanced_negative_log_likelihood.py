"""The likelihood with a mean that no row is left out of: the default of this library."""

from __future__ import annotations

from typing import ClassVar, final

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._gradients import gradient_only
from keras_mvn.losses.base import CovarianceLoss
from keras_mvn.ops._density import from_elliptical

__all__ = ["BalancedNegativeLogLikelihood"]

MEAN_WEIGHT = 3.0
"""How much more the mean's gradient counts than the covariance's in the layers that both share.
Between 3 and 10 it hardly matters; at 1 the covariance disturbs them before a mean has formed."""


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class BalancedNegativeLogLikelihood(CovarianceLoss):
    """The value of the NLL; errors of the mean weighted halfway between its weights and equal ones.

    The likelihood weighs the error of target j in row i by 1/σᵢⱼ². Where a model is uncertain its
    mean then hardly learns, which keeps it uncertain; and before a mean has formed, everything is
    uncertain. Equal weights 1/σ̄ⱼ² learn the mean everywhere, and waste what the rows of little
    noise say. This loss takes the geometric mean of the two,

        ∂/∂μᵢⱼ = −3 rᵢⱼ / (σᵢⱼ σ̄ⱼ),   r = y − μ,   σ̄ⱼ = the mean of σᵢⱼ over the batch,

    with σᵢⱼ the predicted standard deviation (its mean weighted as the rows are, and taken where
    target j was observed), and trains the covariance by the NLL of the residuals that this mean
    leaves. The weights are positive and know nothing of y, so the mean still
    converges to the conditional mean; they are in the units of y, so that no choice of units
    matters; and a batch in which all rows are equally uncertain is the likelihood's own gradient
    without the correlations, whatever the uncertainty. Unlike β-NLL at β = ½, whose weights are
    1/(σᵢⱼ tⱼ) with the spread tⱼ of y, the mean's pull grows as the model grows certain.

    The value is the NLL in nats, so that `val_loss` compares with that of the other losses.

    Arguments and errors as `NegativeLogLikelihood`.

    >>> import numpy as np
    >>> loss = BalancedNegativeLogLikelihood(covariance="diagonal")
    >>> round(float(loss(np.array([[1.0]]), np.array([[0.0, 2.0]]))), 4)  # −log N(1; 0, 2²)
    1.7371

    """

    has_kernel: ClassVar[bool] = True

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """−log p of each row (...), with the balanced gradient of the mean."""
        found = elliptical(
            self.reader.covariance,
            targets,
            parameters,
            fixed_mean=True,
            variance=True,
            fused=self.fused,
        )
        sigma = ops.sqrt(found.variance)
        residual = targets.values - found.mean
        # (r/σ)/σ̄: no product of two scales is formed.
        pull = targets.of_observed(ops.stop_gradient(residual) / sigma)
        pull = pull * (MEAN_WEIGHT / targets.mean_over_rows(sigma))
        return from_elliptical(found, targets) + ops.sum(pull * gradient_only(residual), axis=-1)
