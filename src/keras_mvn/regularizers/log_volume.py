"""The log-volume of the predicted covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np

from keras_mvn._core.checks import finite
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts import Parameters
from keras_mvn.regularizers import _checks, _terms
from keras_mvn.regularizers.base import CovarianceRegularizer

__all__ = ["LogVolume"]


@final
@keras.saving.register_keras_serializable(package="keras_mvn.regularizers")
class LogVolume(CovarianceRegularizer):
    """`strength · (½ log det Σ − Σ log unit)`, the log-volume of the predicted ellipsoids.

    Beside the negative log-likelihood, which contains ½ log det Σ once, a positive strength asks
    for smaller regions and a negative one, down to −1, for larger ones (½ log det Σ is the
    entropy up to a constant: an entropy bonus). A covariance free of x ends at 1/(1 + strength)
    times the residuals' covariance. At −1 nothing would hold the volume back.

    The logarithm is not bounded below and is not zero anywhere in particular: its value, unlike
    its gradient, depends on the units of y. Without `units` it is absolute; with them it is 0 for
    a volume of Π units.

    Args:
        strength: weight, > −1.
        units: d positive numbers in the units of y, for example the standard deviations of the
            training targets; None measures in the units of y themselves.

    Raises:
        ValueError: strength ≤ −1, units that are not positive; when called, a prediction of
            another number of targets.

    Source: Pereyra, Tucker, Chorowski, Kaiser & Hinton, "Regularizing neural networks by
    penalizing confident output distributions", ICLR workshop (2017), for the negative strength.

    >>> import numpy as np
    >>> from keras_mvn.covariances import Diagonal
    >>> parameters = Parameters(np.zeros(2), np.array([3.0, 0.5]), np.zeros(0))
    >>> float(LogVolume(1.0, units=[3.0, 1.0])(Diagonal(), parameters).round(4))  # log 0.5
    -0.6931

    """

    def __init__(self, strength: float, units: Sequence[float] | None = None) -> None:
        self.strength = _checks.at_least(strength, "strength", -1.0)
        if self.strength == -1.0:
            raise ValueError(
                "strength=-1 would cancel the log-volume in the likelihood, and nothing would "
                "hold it back. Expected a number > −1."
            )
        self.units = None if units is None else finite(units, "units")
        if self.units is not None and (self.units.ndim != 1 or not (self.units > 0).all()):
            raise ValueError(f"units={units!r} must be d positive numbers, one per target.")
        self.unit_volume = 0.0 if self.units is None else float(np.log(self.units).sum())

    def __call__(self, covariance: Covariance, parameters: Parameters) -> Tensor:
        """The penalty (...) of these parameters; negative for small volumes."""
        if self.units is not None:
            _checks.check_event_size(len(self.units), parameters.scale.shape[-1], "units")
        return self.strength * (_terms.log_volume(covariance, parameters) - self.unit_volume)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        units = None if self.units is None else self.units.tolist()
        return {"strength": self.strength, "units": units}
