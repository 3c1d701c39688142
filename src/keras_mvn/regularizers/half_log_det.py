"""A penalty on ½ log det Σ, the log-volume of the predicted ellipsoids up to a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np

from keras_mvn._core.checks import finite
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _terms
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["HalfLogDet"]


@final
@keras.saving.register_keras_serializable("keras_mvn.regularizers", "LogVolume")  # as in 0.1.0
class HalfLogDet(CovarianceRegularizer):
    """`strength · (½ log det Σ − Σ log t)`, the log-volume of the predicted ellipsoids.

    Beside the negative log-likelihood, which contains ½ log det Σ once, a positive strength asks
    for smaller regions and a negative one, down to −1, for larger ones (½ log det Σ is the
    entropy up to a constant: an entropy bonus). A covariance free of x ends at 1/(1 + strength)
    times the residuals' covariance. At −1 nothing would hold the volume back.

    The logarithm is not bounded below and is not zero anywhere in particular: its value, unlike
    its gradient, depends on the units of y. Without `target_scale` t it is
    absolute; with it, it is 0 for independent targets with these standard deviations.

    Args:
        strength: weight, > −1.
        target_scale: d positive numbers in the units of y, for example the standard deviations of
            the training targets; None measures in the units of y themselves.

    Raises:
        ValueError: strength ≤ −1, a target_scale that is not positive; when called, a prediction of
            another number of targets.

    Source: Pereyra, Tucker, Chorowski, Kaiser & Hinton, "Regularizing neural networks by
    penalizing confident output distributions", ICLR workshop (2017), for the negative strength.

    >>> import numpy as np
    >>> from keras_mvn.covariances import Diagonal
    >>> parameters = Parameters(np.zeros(2), np.array([3.0, 0.5]), np.zeros(0))
    >>> float(HalfLogDet(1.0, target_scale=[3.0, 1.0])(Diagonal(), parameters).round(4))  # log 0.5
    -0.6931

    """

    def __init__(self, strength: float, target_scale: Sequence[float] | None = None) -> None:
        self.strength = _checks.at_least(strength, "strength", -1.0)
        if self.strength == -1.0:
            raise ValueError(
                "strength=-1 would cancel the log-volume in the likelihood, and nothing would "
                "hold it back. Expected a number > −1."
            )
        self.target_scale = _positive(target_scale)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """The penalty (...) of these parameters; negative for small volumes."""
        found = _terms.half_log_det(covariance, parameters)
        if self.target_scale is not None:
            d = parameters.scale.shape[-1]
            _checks.check_event_size(len(self.target_scale), d, "target_scale")
            found = found - float(np.log(self.target_scale).sum())
        return self.strength * found

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        scale = None if self.target_scale is None else self.target_scale.tolist()
        return {"strength": self.strength, "target_scale": scale}


def _positive(target_scale: Sequence[float] | None) -> Array | None:
    if target_scale is None:
        return None
    scale = finite(target_scale, "target_scale")
    if scale.ndim != 1 or not (scale > 0).all():
        raise ValueError(
            f"target_scale={target_scale!r} must be d positive numbers, one per target."
        )
    return scale
