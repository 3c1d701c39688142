"""What the losses of a multivariate Student's t share: ν, and the log-density."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

from keras import ops

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.kernels import Elliptical
from keras_mvn.layouts import Parameters, StudentTParameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses.base import CovarianceLoss
from keras_mvn.ops._laws import law_of

__all__ = ["StudentTLoss"]

LEARNED = "learned"


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

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters of the scale matrix, together with ν."""
        if self.degrees_of_freedom == LEARNED:
            return self.reader.decode_elliptical(y_pred)
        parameters = self.reader.decode_elliptical(y_pred)
        # One number for all rows: its gamma functions cost nothing.
        nu = ops.convert_to_tensor(self.degrees_of_freedom, parameters.mean.dtype)
        return StudentTParameters.of(parameters, nu)

    def value(self, found: Elliptical, parameters: Parameters, targets: Targets) -> Tensor:
        """Return −log p of the observed targets of each row (...)."""
        return law_of(self.as_read(found, parameters)).negative_log_density(found, targets)

    def as_read(self, found: Elliptical, parameters: Parameters) -> Parameters:
        """Return the parameters, with the ν of a kernel that has read it, and its gradient."""
        if found.trailing is None:
            return parameters
        return StudentTParameters.of(parameters, found.trailing)

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
