"""The likelihood of a multivariate Student's t: the normal's, with room for outliers."""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

import keras
from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.kernels import elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses._log_gamma import log_gamma_ratio
from keras_mvn.losses.base import CovarianceLoss

__all__ = ["StudentT"]

LEARNED = "learned"


class _StudentTParameters(Parameters):
    """Parameters, as penalties read them, that also carry ν (...)."""

    degrees_of_freedom: Tensor
    _packed: Tensor | None

    @classmethod
    def of(cls, parameters: Parameters, degrees_of_freedom: Tensor) -> _StudentTParameters:
        both = cls(*parameters)
        both.degrees_of_freedom, both._packed = degrees_of_freedom, parameters.packed
        return both

    @property
    def packed(self) -> Tensor | None:
        """The tensor they were read from, without ν."""
        return self._packed


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class StudentT(CovarianceLoss):
    """−log t_ν(y; μ, Σ): the residual counts logarithmically where it is far out.

    −log p = log Γ(ν/2) − log Γ((ν + d)/2) + (d/2) log(νπ) + ½ log det Σ
             + ((ν + d)/2) log(1 + ‖z‖²/ν),   z = Σ^(−½)(y − μ), in nats.

    Σ is Student's scale matrix; the covariance is ν/(ν − 2) Σ. An outlier's pull on mean and
    covariance is bounded, where a normal likelihood follows the square of its distance. ν → ∞ is
    the normal distribution.

    With fixed ν the model's y_pred is that of any other loss, and whoever reads it as a normal
    distribution reads N(μ, Σ): multiply standard deviations by √(ν/(ν − 2)),
    `normal.rescale(...)`, for the same covariance. With "learned" the head has
    `learn_degrees_of_freedom=True` and y_pred one more column; every other reader refuses it
    unless told `layout="student_t"`, and then takes the normal distribution with the mean and the
    covariance of the Student's t, as `head.distribution` does.

    Args:
        degrees_of_freedom: ν > 2, or "learned".
        covariance: as in `NegativeLogLikelihood`.
        **kwargs: the other arguments of `NegativeLogLikelihood`; `layout` is implied by "learned".

    Raises:
        ValueError: ν ≤ 2, which has no covariance; as `NegativeLogLikelihood`.

    Source: Lange, Little & Taylor, "Robust statistical modeling using the t distribution", JASA 84
    (1989).

    >>> import numpy as np
    >>> loss = StudentT(4.0, covariance="diagonal")
    >>> round(float(loss(np.array([[3.0]]), np.array([[0.0, 2.0]]))), 4)  # scipy.stats.t(4, 0, 2)
    2.7897

    """

    has_kernel: ClassVar[bool] = True

    def __init__(
        self,
        degrees_of_freedom: float | str = 5.0,
        covariance: CovarianceLike = DEFAULT,
        **kwargs: Any,
    ) -> None:
        self.degrees_of_freedom = _checked(degrees_of_freedom)
        if self.degrees_of_freedom == LEARNED:
            kwargs["layout"] = "student_t"
        super().__init__(covariance, **kwargs)

    def decode(self, y_pred: Tensor) -> _StudentTParameters:
        """The parameters of the scale matrix, and with them ν."""
        parameters, nu = self.reader.decode_student_t(y_pred)
        if self.degrees_of_freedom != LEARNED:
            nu = ops.full_like(parameters.mean[..., 0], self.degrees_of_freedom)
        return _StudentTParameters.of(parameters, nu)

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """−log p of what was observed in each row (...)."""
        assert isinstance(parameters, _StudentTParameters)  # from `decode`
        nu = parameters.degrees_of_freedom
        found = elliptical(self.reader.covariance, targets, parameters, fused=self.fused)
        half = 0.5 * targets.observed_count() * ops.ones_like(nu)
        normalizer = half * ops.log(nu * math.pi) - log_gamma_ratio(0.5 * nu, half)
        return (
            normalizer
            + found.half_log_det
            + (0.5 * nu + half) * ops.log1p(found.squared_mahalanobis / nu)
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "degrees_of_freedom": self.degrees_of_freedom}


def _checked(nu: float | str) -> float | str:
    if nu == LEARNED:
        return LEARNED
    if isinstance(nu, str) or not nu > 2.0:
        raise ValueError(
            f"degrees_of_freedom={nu!r} must be a number above 2, below which Student's t has no "
            "covariance, or 'learned'."
        )
    return float(nu)
