"""A penalty on ½ log det Σ, up to a constant the log-volume of the predicted ellipsoids."""

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
    """The penalty `strength · (½ log det Σ − Σ log t)` on the volume of the predicted ellipsoids.

    The negative log-likelihood contains ½ log det Σ once. A positive strength favors smaller
    regions, and a negative one, down to −1, larger ones (½ log det Σ is the entropy up to a
    constant, so this is an entropy bonus). A covariance that does not depend on x converges to
    1/(1 + strength) times the residuals' covariance. At −1 nothing would hold the volume back.

    The logarithm is unbounded below, and its zero is arbitrary: the value, unlike the gradient,
    depends on the units of y. Without `target_scale` t it is in the units of y; with it, the
    penalty is 0 for independent targets with these standard deviations.

    Args:
        strength: float > −1, the weight of the penalty.
        target_scale: d positive numbers in the units of y, for example the standard deviations of
            the training targets; None uses the units of y themselves.

    Raises:
        ValueError: `strength` is ≤ −1 or `target_scale` is not positive; when called, the
            prediction has a different number of targets.

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
                "hold it back. Pass a number > −1."
            )
        self.target_scale = _positive(target_scale)

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """Return the penalty (...) for these parameters; negative for small volumes."""
        found = _terms.half_log_det(covariance, parameters)
        if self.target_scale is not None:
            d = parameters.scale.shape[-1]
            _checks.check_event_size(len(self.target_scale), d, "target_scale")
            found = found - float(np.log(self.target_scale).sum())
        return self.strength * found

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
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
