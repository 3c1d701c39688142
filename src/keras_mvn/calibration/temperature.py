"""One factor for all standard deviations, fitted on a calibration set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import positive, probability
from keras_mvn._core.chi_square import chi_square_quantile
from keras_mvn.calibration._models import with_scaled_errors
from keras_mvn.calibration._quantile import conformal_quantile, rows_needed
from keras_mvn.calibration._rows import calibration_rows
from keras_mvn.calibration.base import Recalibration, register
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.scores._observations import Observations

__all__ = ["Temperature"]


@final
@register
@dataclass(frozen=True)
class Temperature(Recalibration):
    """Σ' = temperature² Σ: one factor on every standard deviation.

    Networks are usually overconfident: temperature > 1. Means and correlations stay as they are.
    With q the squared Mahalanobis distance of a calibration row in the margin of its m observed
    targets (without gaps m = d), two ways to fit the factor, which agree in the limit of many rows
    where errors are normal and Σ is right but for a factor:

    * `objective="likelihood"` is the most likely factor, temperature² = Σ q / Σ m; without gaps
      mean(q)/d.
    * `objective="coverage"` makes the regions of one level hold what they claim: temperature² is
      the ⌈(n + 1) level⌉-th smallest q/χ²_{m, level} of n rows, χ²_{m, level} the quantile of the
      χ² distribution with m degrees of freedom. It is the radius of `SplitConformal` put into Σ: if
      calibration rows and a new row are exchangeable, the calibrated ellipsoid of that level holds
      what is observed of the new row with probability ≥ level, whatever the errors are. The rank is
      one more than ⌈n level⌉ at most; that makes the promise hold for few rows, too.

    Where errors are heavier-tailed than normal, the most likely factor follows the few large ones,
    and the 90 % regions of all rows are too large: hence the second. Regions of other levels hold
    what they claim only as far as errors are normal; for all levels at once see `RadialIsotonic`.

    Args:
        temperature: positive.

    Raises:
        ValueError: it is not positive.

    Source: the multivariate form of Levi et al., "Evaluating and calibrating uncertainty
    prediction in regression tasks", Sensors 22 (2022); for the coverage of complete rows, Johnstone
    & Cox, "Conformal uncertainty sets for robust optimization", COPA 2021.

    >>> import numpy as np
    >>> normal = MultivariateNormal(np.zeros((4, 1)), covariance=np.ones((4, 1, 1)))
    >>> calibration = Temperature.fit(normal, [[2.0], [-2.0], [2.0], [-2.0]])
    >>> calibration
    Temperature(temperature=2.0)
    >>> calibration.apply(normal).stddev[0]
    array([2.])

    """

    takes_gaps: ClassVar[bool] = True

    temperature: float

    def __post_init__(self) -> None:
        if positive(self.temperature, "temperature").ndim:
            raise ValueError(f"temperature={self.temperature!r} must be one positive number.")

    @classmethod
    def fit(
        cls,
        normal: MultivariateNormal,
        y: Any,
        missing: str = "raise",
        objective: str = "likelihood",
        level: float = 0.9,
    ) -> Self:
        """The temperature of predictions for rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, one row for each distribution.
            missing: "marginalize" reads NaN in y as "not observed"; by default it is an error.
                Rows of which nothing was observed do not count.
            objective: "likelihood" or "coverage", as above.
            level: the coverage wanted, for "coverage".

        Raises:
            ValueError: no rows, shapes that don't fit, values that are not finite, predictions
                that all hit exactly, another objective, a level that is not between 0 and 1, or
                fewer than level/(1 − level) rows for "coverage" (9 for 0.9).

        """
        if objective not in _SQUARES:
            raise ValueError(
                f"objective={objective!r} is not known. Expected one of {sorted(_SQUARES)}."
            )
        probability(level, "level")
        rows = calibration_rows(normal, y, missing, "Temperature.fit", every_target=False)
        square = _SQUARES[objective](rows, level)
        if square == 0.0:
            raise ValueError(
                "Temperature.fit: every prediction equals y (with objective='coverage': a share of "
                "`level` does), so no scale fits. Are y and the predicted means the same array?"
            )
        return cls(math.sqrt(square))

    def _apply_to_normal(self, normal: MultivariateNormal) -> MultivariateNormal:
        return normal.rescale(self.temperature)

    def _apply_to_model(self, model: keras.Model) -> keras.Model:
        return with_scaled_errors(model, np.array(self.temperature))


def _most_likely(rows: Observations, _: float) -> float:
    return float(rows.squared_distances.sum() / rows.is_observed.sum())


def _covering(rows: Observations, level: float) -> float:
    count = rows.is_observed.sum(axis=-1)
    used = count > 0
    counts, index = np.unique(count[used], return_inverse=True)
    limits = np.array([chi_square_quantile(level, int(m)) for m in counts])
    square = conformal_quantile(rows.squared_distances[used] / limits[index], level)
    if math.isinf(square):
        raise ValueError(
            f"Temperature.fit: {len(index)} calibration rows are too few for a coverage of "
            f"level={level}; it takes {rows_needed(level)}. Use more rows, a lower level, or "
            "objective='likelihood'."
        )
    return square


_SQUARES = {"likelihood": _most_likely, "coverage": _covering}
