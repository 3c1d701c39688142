"""β-NLL: the negative log-likelihood, with a larger gradient for uncertain targets."""

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
    """The NLL, with the gradient of target j multiplied by (σⱼ²/tⱼ²)^β.

    Under the plain NLL, a target's error has weight 1/σ²: where the model is uncertain, the mean
    hardly learns, so the model stays uncertain. β = 0 is the NLL; with β = 1, the gradient of the
    mean is that of a squared error whitened by the correlations, whatever the scales.

    The paper covers a diagonal covariance, with weights stop_gradient(σⱼ^(2β)) on each target's
    NLL. Here, σⱼ is the standard deviation of target j under the full covariance, and tⱼ is the
    standard deviation of y, without which the weights of targets would depend on their units. The
    weight multiplies the gradients of mean j and scale j; shape parameters, which belong to no
    single target, get the geometric mean of the weights. For `Diagonal` and t = 1, this is the
    published gradient. For every structure, the weights are positive and do not depend on the
    residual, so the expected gradient still vanishes exactly at the true mean and covariance;
    weights on the terms of a quadratic form with correlations would not guarantee this. The result
    does not depend on the order of the targets, and needs only the diagonal of Σ.

    The value is the NLL in nats, so `val_loss` is comparable with that of the other losses.

    Args:
        beta: float between 0 and 1; 0.5 is the paper's recommendation. `callbacks.BetaAnnealing`
            changes it during training.
        covariance: as in `NegativeLogLikelihood`.
        target_scale: as in `UnitFreeLoss`; None takes the standard deviations of y from the head.
        **kwargs: the other arguments of `NegativeLogLikelihood`.

    Raises:
        ValueError: beta is not between 0 and 1; or as for `NegativeLogLikelihood`.

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
        """Return −log p of each row (...), with the weighted gradient."""
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
        """Return the constructor's arguments."""
        return {**super().get_config(), "beta": float(ops.convert_to_numpy(self.beta))}
