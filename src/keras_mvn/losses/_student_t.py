"""What the losses of a multivariate Student's t share: ν, and the log-density."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.layouts import Parameters
from keras_mvn.losses._log_gamma import log_gamma_ratio
from keras_mvn.losses.base import CovarianceLoss

__all__ = ["StudentTLoss", "StudentTParameters"]

LEARNED = "learned"


class StudentTParameters(Parameters):
    """Parameters, as read by penalties, that also carry ν (...)."""

    degrees_of_freedom: Tensor
    _packed: Tensor | None

    @classmethod
    def of(cls, parameters: Parameters, degrees_of_freedom: Tensor) -> StudentTParameters:
        both = cls(*parameters)
        both.degrees_of_freedom, both._packed = degrees_of_freedom, parameters.packed
        return both

    @property
    def packed(self) -> Tensor | None:
        """The tensor from which the parameters were read, without ν."""
        return self._packed


class StudentTLoss(CovarianceLoss, abc.ABC):
    """Base of losses whose value is −log t_ν(y; μ, Σ), in nats.

    Args:
        degrees_of_freedom: float, ν > 2; or "learned", for the ν that the head writes.
        covariance: as in `NegativeLogLikelihood`.
        **kwargs: the other arguments of `NegativeLogLikelihood`; "learned" implies `layout`.

    Raises:
        ValueError: ν ≤ 2, for which there is no covariance; or as for `NegativeLogLikelihood`.

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

    def decode(self, y_pred: Tensor) -> StudentTParameters:
        """Return the parameters of the scale matrix, together with ν."""
        parameters, nu = self.reader.decode_student_t(y_pred)
        if self.degrees_of_freedom != LEARNED:
            nu = ops.full_like(parameters.mean[..., 0], self.degrees_of_freedom)
        return StudentTParameters.of(parameters, nu)

    def value(
        self, squared_mahalanobis: Tensor, half_log_det: Tensor, nu: Tensor, count: Tensor
    ) -> Tensor:
        """Return −log p from the squared distance and the number of observed targets: (...)."""
        half = 0.5 * count * ops.ones_like(nu)
        normalizer = half * ops.log(nu * math.pi) - log_gamma_ratio(0.5 * nu, half)
        return normalizer + half_log_det + (0.5 * nu + half) * ops.log1p(squared_mahalanobis / nu)

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
