"""The continuous ranked probability score of each target separately."""

from __future__ import annotations

import math
from typing import final

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses.base import UnitFreeLoss
from keras_mvn.ops._student_norms import spread_factor, student_mean_power

__all__ = ["CRPS"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class CRPS(UnitFreeLoss):
    """The continuous ranked probability score (CRPS), summed over the observed targets of a row.

    Σⱼ CRPS(N(μⱼ, σⱼ²), yⱼ)/tⱼ = Σⱼ σⱼ/tⱼ [w (2Φ(w) − 1) + 2φ(w) − 1/√π], w = (yⱼ − μⱼ)/σⱼ.

    A proper score of the marginals: it grows linearly with an error where the NLL grows with its
    square, so it is robust to outliers. It does not depend on how targets vary together: with a
    full covariance, use `EnergyScore`, or the shape parameters keep their initial values.

    With `layout="student_t"`, the score is that of the Student's t with the scale σⱼ, σⱼ/tⱼ
    (E `|T − w|` − ½ E `|T − T'|`): the second term is in closed form, the first one an integral
    evaluated at 64 nodes per target.

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

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters as stored, with ν for a Student's t."""
        return self.reader.decode_elliptical(y_pred)

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return the sum over the observed targets of each row (...)."""
        mean, scale, shape_params = parameters
        variance = self.reader.covariance.variance(scale / targets.unit, shape_params)
        sigma = ops.sqrt(variance)
        w = targets.of_observed((targets.values - mean) / targets.unit) / sigma
        nu = parameters.degrees_of_freedom
        score = sigma * (_of_normal(w) if nu is None else _of_student(w, nu[..., None]))
        return ops.sum(targets.of_observed(score), axis=-1)


def _of_normal(w: Tensor) -> Tensor:
    """Return the CRPS of N(0, 1) at w."""
    density = ops.exp(-0.5 * w * w) * math.sqrt(2.0 / math.pi)
    return w * ops.erf(w / math.sqrt(2.0)) + density - 1.0 / math.sqrt(math.pi)


def _of_student(w: Tensor, nu: Tensor) -> Tensor:
    """Return the CRPS of the standard t_ν at w: E |T − w| − ½ E |T − T′|."""
    near = student_mean_power(w, ops.ones_like(w), nu, 1.0)
    return near - spread_factor(nu) / math.sqrt(2.0 * math.pi)
