"""Faithful heteroscedastic regression: a mean trained by squared error, a covariance by NLL."""

from __future__ import annotations

from typing import ClassVar, final

import keras

from keras_mvn._core.types import Tensor
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._gradients import gradient_only, squared_error
from keras_mvn.losses.base import UnitFreeLoss
from keras_mvn.ops._density import from_elliptical

__all__ = ["FaithfulNegativeLogLikelihood"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class FaithfulNegativeLogLikelihood(UnitFreeLoss):
    """The NLL, with the mean trained by ½ ‖(y − μ)/t‖² and the covariance by the NLL.

    The mean is that of a network trained on squared errors, in standard deviations t of y, and
    uncertain rows keep their influence on it; the covariance learns from the residuals of that
    mean. Use it with the head's `stop_trunk=True`: then the covariance does not disturb the layers
    before the head either, and the mean is exactly that of the squared error. Otherwise, the
    covariance may disturb them (docs/choosing.md).

    The value is the NLL in nats, so `val_loss` is comparable with that of the other losses (the
    paper adds the squared error to it, which changes no gradient).

    Args:
        covariance: as in `NegativeLogLikelihood`.
        target_scale: as in `UnitFreeLoss`; None takes the standard deviations of y from the head.
        **kwargs: the other arguments of `NegativeLogLikelihood`.

    Raises:
        ValueError: y_pred does not come from a head and there is no `target_scale`; or as for
            `NegativeLogLikelihood`.

    Source: Stirn et al., "Faithful heteroscedastic regression with neural networks", AISTATS 2023.

    >>> import numpy as np
    >>> loss = FaithfulNegativeLogLikelihood(covariance="diagonal", target_scale=1.0)
    >>> round(float(loss(np.array([[1.0]]), np.array([[0.0, 2.0]]))), 4)  # −log N(1; 0, 2²)
    1.7371

    """

    has_kernel: ClassVar[bool] = True

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of each row (...), with the squared error's gradient for the mean."""
        found = elliptical(
            self.reader.covariance, targets, parameters, fixed_mean=True, fused=self.fused
        )
        nll = from_elliptical(found, targets)
        return nll + gradient_only(squared_error(targets, found.mean))
