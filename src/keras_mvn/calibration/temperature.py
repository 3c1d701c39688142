"""One factor for all standard deviations, fitted on a calibration set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np

from keras_mvn._checks import observations
from keras_mvn.distribution import MultivariateNormal

__all__ = ["Temperature"]


@final
@dataclass(frozen=True)
class Temperature:
    """Σ' = temperature² Σ: one factor on every standard deviation.

    The maximum-likelihood factor has a closed form, temperature² = mean(m²)/d with m the
    Mahalanobis distances of the calibration rows. Networks are usually overconfident:
    temperature > 1. Means and correlations stay as they are.

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

    @classmethod
    def fit(cls, normal: MultivariateNormal, y: Any) -> Self:
        """The temperature of predictions for rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (rows, d), what was observed.

        Raises:
            ValueError: no rows, shapes that don't fit, values that are not finite, or predictions
                that all hit exactly.

        """
        distance = normal.mahalanobis(observations(y, normal.mean))
        if distance.size == 0:
            raise ValueError("Temperature.fit needs at least one calibration row; received none.")
        temperature = float(np.sqrt(np.mean(distance**2) / normal.event_size))
        if temperature == 0.0:
            raise ValueError(
                "Temperature.fit: every prediction equals y, so no scale fits. Are y and the "
                "predicted means the same array?"
            )
        return cls(temperature)

    def apply(self, normal: MultivariateNormal) -> MultivariateNormal:
        """The calibrated predictions."""
        return normal.rescale(self.temperature)
