"""β-NLL: the likelihood, with the gradient of uncertain targets turned up again."""

from __future__ import annotations

from typing import Any, final

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._gradients import with_gradient_weight
from keras_mvn.losses.base import UnitFreeLoss
from keras_mvn.ops._density import row_negative_log_likelihood

__all__ = ["BetaNegativeLogLikelihood"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class BetaNegativeLogLikelihood(UnitFreeLoss):
    """The value of the NLL; the gradient of target j multiplied by (σⱼ²/tⱼ²)^β.

    Under plain NLL a target's error counts 1/σ²: where the model is uncertain the mean hardly
    learns, and stays uncertain. β = 0 is the NLL; at β = 1 the gradient of the mean is that of a
    squared error between whitened correlations, whatever the scales.

    Published for a diagonal covariance, as weights stop_gradient(σⱼ^(2β)) on each target's NLL.
    Here σⱼ is the standard deviation of target j under the full covariance, and tⱼ the standard
    deviation of y, without which the weights of targets would depend on their units. The weight
    multiplies the gradient by mean j and by scale j; shape parameters, which belong to no single
    target, get the geometric mean of the weights. For `Diagonal` and t = 1 that is the published
    gradient. For every structure the weights are positive and known before the residual is, so
    that the expected gradient still vanishes exactly at the true mean and covariance, which
    weights on the terms of a quadratic form with correlations would not give. It does not depend on
    the order of the targets, and asks for the diagonal of Σ alone.

    The value is the NLL in nats, so that `val_loss` compares with that of the other losses.

    Args:
        beta: between 0 and 1; 0.5 is the paper's recommendation. `callbacks.BetaAnnealing` changes
            it while training.
        covariance: as in `NegativeLogLikelihood`.
        target_scale: as in `UnitFreeLoss`: None takes the standard deviations of y from the head.
        **kwargs: the other arguments of `NegativeLogLikelihood`.

    Raises:
        ValueError: beta is not between 0 and 1; as `NegativeLogLikelihood`.

    Source: Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation with
    probabilistic neural networks", ICLR 2022.

    >>> import numpy as np
    >>> loss = BetaNegativeLogLikelihood(0.5, covariance="diagonal", target_scale=1.0)
    >>> y_pred = np.array([[0.0, 2.0]])  # mean, scale
    >>> round(float(loss(np.array([[1.0]]), y_pred)), 4)  # −log N(1; 0, 2²)
    1.7371

    """

    def __init__(
        self,
        beta: float = 0.5,
        covariance: CovarianceLike = DEFAULT,
        target_scale: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(covariance, target_scale, **kwargs)
        if not 0.0 <= beta <= 1.0:
            raise ValueError(f"beta={beta!r} must be between 0 (the NLL) and 1.")
        self.beta = keras.Variable(beta, trainable=False, dtype="float32", name="beta")

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """−log p of each row (...), with the weighted gradient."""
        mean, scale, shape_params = parameters
        covariance = self.reader.covariance
        variance = covariance.variance(scale / targets.unit, shape_params)
        beta = ops.cast(ops.convert_to_tensor(self.beta), variance.dtype)
        log_weight = beta * ops.log(ops.stop_gradient(variance))
        weight = ops.exp(log_weight)
        common = ops.exp(ops.mean(log_weight, axis=-1, keepdims=True))
        weighted = Parameters(
            with_gradient_weight(mean, weight),
            with_gradient_weight(scale, weight),
            with_gradient_weight(shape_params, common),
        )
        return row_negative_log_likelihood(covariance, targets, weighted)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "beta": float(ops.convert_to_numpy(self.beta))}
