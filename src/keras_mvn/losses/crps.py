"""The continuous ranked probability score of each target separately, in closed form."""

from __future__ import annotations

import math
from typing import final

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses.base import UnitFreeLoss

__all__ = ["CRPS"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class CRPS(UnitFreeLoss):
    """The continuous ranked probability score (CRPS), summed over the observed targets of a row.

    Σⱼ CRPS(N(μⱼ, σⱼ²), yⱼ)/tⱼ = Σⱼ σⱼ/tⱼ [w (2Φ(w) − 1) + 2φ(w) − 1/√π], w = (yⱼ − μⱼ)/σⱼ.

    A proper score of the marginals: it grows linearly with an error where the NLL grows with its
    square, so it is robust to outliers. It does not depend on how targets vary together: with a
    full covariance, use `EnergyScore`, or the shape parameters keep their initial values.

    The score is in standard deviations t of y; with `target_scale=1.0`, it is in the units of y.

    Args:
        covariance: as in `NegativeLogLikelihood`.
        target_scale: as in `UnitFreeLoss`; None takes the standard deviations of y from the head.
        **kwargs: the other arguments of `NegativeLogLikelihood`.

    Raises:
        ValueError: y_pred does not come from a head and there is no `target_scale`; or as for
            `NegativeLogLikelihood`.

    Source: Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA
    102 (2007).

    >>> import numpy as np
    >>> loss = CRPS(covariance="diagonal", target_scale=1.0)
    >>> round(float(loss(np.array([[0.0]]), np.array([[0.0, 1.0]]))), 4)  # (√2 − 1)/√π
    0.2337

    """

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return the sum over the observed targets of each row (...)."""
        mean, scale, shape_params = parameters
        variance = self.reader.covariance.variance(scale / targets.unit, shape_params)
        sigma = ops.sqrt(variance)
        w = targets.of_observed((targets.values - mean) / targets.unit) / sigma
        density = ops.exp(-0.5 * w * w) * math.sqrt(2.0 / math.pi)
        score = sigma * (w * ops.erf(w / math.sqrt(2.0)) + density - 1.0 / math.sqrt(math.pi))
        return ops.sum(targets.of_observed(score), axis=-1)
