"""The negative log-likelihood of a multivariate Student's t, for data with outliers."""

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
    """Parameters, as read by penalties, that also carry ν (...)."""

    degrees_of_freedom: Tensor
    _packed: Tensor | None

    @classmethod
    def of(cls, parameters: Parameters, degrees_of_freedom: Tensor) -> _StudentTParameters:
        both = cls(*parameters)
        both.degrees_of_freedom, both._packed = degrees_of_freedom, parameters.packed
        return both

    @property
    def packed(self) -> Tensor | None:
        """The tensor from which the parameters were read, without ν."""
        return self._packed


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class StudentT(CovarianceLoss):
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
    `layout="student_t"`, and then uses the normal distribution with the mean and the covariance of
    the Student's t.

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
        """Return the parameters of the scale matrix, together with ν."""
        parameters, nu = self.reader.decode_student_t(y_pred)
        if self.degrees_of_freedom != LEARNED:
            nu = ops.full_like(parameters.mean[..., 0], self.degrees_of_freedom)
        return _StudentTParameters.of(parameters, nu)

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return −log p of the observed targets of each row (...)."""
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
        """Return the constructor's arguments."""
        return {**super().get_config(), "degrees_of_freedom": self.degrees_of_freedom}


def _checked(nu: float | str) -> float | str:
    if nu == LEARNED:
        return LEARNED
    if isinstance(nu, str) or not nu > 2.0:
        raise ValueError(
            f"degrees_of_freedom={nu!r} must be 'learned' or a number above 2; otherwise, "
            "Student's t has no covariance."
        )
    return float(nu)
