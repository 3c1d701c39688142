"""One factor for all standard deviations, fitted on a calibration set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._checks import positive
from keras_mvn.calibration._models import with_scaled_errors
from keras_mvn.calibration._rows import calibration_rows
from keras_mvn.calibration.base import Recalibration, register
from keras_mvn.distribution import MultivariateNormal

__all__ = ["Temperature"]


@final
@register
@dataclass(frozen=True)
class Temperature(Recalibration):
    """Σ' = temperature² Σ: one factor on every standard deviation.

    The maximum-likelihood factor has a closed form, temperature² = Σ m² / (number of observed
    targets), m the Mahalanobis distances of the calibration rows; without gaps mean(m²)/d.
    Networks are usually overconfident: temperature > 1. Means and correlations stay as they are.

    Source: the multivariate form of Levi et al., "Evaluating and calibrating uncertainty
    prediction in regression tasks", Sensors 22 (2022).

    >>> import numpy as np
    >>> normal = MultivariateNormal(np.zeros((4, 1)), covariance=np.ones((4, 1, 1)))
    >>> calibration = Temperature.fit(normal, [[2.0], [-2.0], [2.0], [-2.0]])
    >>> calibration
    Temperature(temperature=2.0)
    >>> calibration.apply(normal).stddev[0]
    array([2.])
    """

    temperature: float

    def __post_init__(self) -> None:
        positive(self.temperature, "temperature")

    @classmethod
    def fit(cls, normal: MultivariateNormal, y: Any, missing: str = "propagate") -> Self:
        """The temperature of predictions for rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, one row for each distribution.
            missing: "marginalize" reads NaN in y as "not observed"; by default it is an error.

        Raises:
            ValueError: no rows, shapes that don't fit, values that are not finite, or predictions
                that all hit exactly.

        """
        rows = calibration_rows(normal, y, missing, "Temperature.fit")
        temperature = float(np.sqrt(rows.squared_distances.sum() / rows.observed.sum()))
        if temperature == 0.0:
            raise ValueError(
                "Temperature.fit: every prediction equals y, so no scale fits. Are y and the "
                "predicted means the same array?"
            )
        return cls(temperature)

    def _apply_to_normal(self, normal: MultivariateNormal) -> MultivariateNormal:
        return normal.rescale(self.temperature)

    def _apply_to_model(self, model: keras.Model) -> keras.Model:
        return with_scaled_errors(model, np.array(self.temperature))
