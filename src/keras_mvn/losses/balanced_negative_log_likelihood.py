"""The negative log-likelihood with balanced weights for the mean: the library's default loss."""

from __future__ import annotations

from typing import ClassVar, final

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.kernels import Elliptical, elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._gradients import gradient_only
from keras_mvn.losses.base import CovarianceLoss
from keras_mvn.ops._density import from_elliptical

__all__ = ["BalancedNegativeLogLikelihood", "balanced_gradient"]

MEAN_WEIGHT = 3.0
"""Weight of the mean's gradient, relative to the covariance's, in the layers that both share.
Values between 3 and 10 hardly differ; with 1, the covariance disturbs these layers before a mean
has formed."""


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class BalancedNegativeLogLikelihood(CovarianceLoss):
    """The NLL, with errors of the mean weighted halfway between the NLL's weights and equal ones.

    The likelihood weights the error of target j in row i by 1/σᵢⱼ². Where a model is uncertain,
    its mean therefore hardly learns, so the model stays uncertain; and before a mean has formed,
    everything is uncertain. Equal weights 1/σ̄ⱼ² train the mean everywhere, but waste the
    information in the rows with little noise. This loss uses the geometric mean of the two,

        ∂/∂μᵢⱼ = −3 rᵢⱼ / (σᵢⱼ σ̄ⱼ),   r = y − μ,   σ̄ⱼ = the mean of σᵢⱼ over the batch,

    where σᵢⱼ is the predicted standard deviation (σ̄ⱼ uses the row weights and only the rows in
    which target j was observed), and trains the covariance by the NLL of the residuals that this
    mean leaves. The weights are positive and independent of y, so the mean still converges to the
    conditional mean. They are in the units of y, so the choice of units does not matter. If all
    rows of a batch are equally uncertain, the gradient is the likelihood's own without the
    correlations, whatever the uncertainty. Unlike in β-NLL with β = ½, whose weights are
    1/(σᵢⱼ tⱼ) with tⱼ the spread of y, the pull on the mean grows as the model gets more certain.

    The value is the NLL in nats, so `val_loss` is comparable with that of the other losses.

    Arguments and errors are those of `NegativeLogLikelihood`.

    >>> import numpy as np
    >>> loss = BalancedNegativeLogLikelihood(covariance="diagonal")
    >>> round(float(loss(np.array([[1.0]]), np.array([[0.0, 2.0]]))), 4)  # −log N(1; 0, 2²)
    1.7371

    """

    has_kernel: ClassVar[bool] = True

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of each row (...), with the balanced gradient of the mean."""
        found = elliptical(
            self.reader.covariance,
            targets,
            parameters,
            fixed_mean=True,
            variance=True,
            fused=self.fused,
        )
        return from_elliptical(found, targets) + balanced_gradient(found, targets)


def balanced_gradient(found: Elliptical, targets: Targets, weight: Tensor | None = None) -> Tensor:
    """Return 0 for each row (...), with the balanced gradient of the mean, times a weight (...)."""
    sigma = ops.sqrt(found.variance)
    residual = targets.values - found.mean
    # (r/σ)/σ̄ avoids the product of two scales.
    pull = targets.of_observed(ops.stop_gradient(residual) / sigma)
    pull = pull * (MEAN_WEIGHT / targets.mean_over_rows(sigma))
    if weight is not None:
        pull = pull * weight[..., None]
    return ops.sum(pull * gradient_only(residual), axis=-1)
