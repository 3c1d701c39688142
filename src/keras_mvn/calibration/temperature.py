"""Recalibration by one factor on all standard deviations, fitted on a calibration set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import positive, probability
from keras_mvn._core.types import Array
from keras_mvn.calibration._components import (
    covering_square_of_components,
    most_likely_square_of_components,
)
from keras_mvn.calibration._models import with_scaled_errors
from keras_mvn.calibration._quantile import conformal_quantile, too_few_rows
from keras_mvn.calibration._rows import matched_rows, require_components
from keras_mvn.calibration._weights import row_weights
from keras_mvn.calibration.base import Recalibration, register
from keras_mvn.distributions._radial_law import RadialLaw
from keras_mvn.distributions.base import Distribution
from keras_mvn.scores._observations import Observations

__all__ = ["Temperature", "most_likely_square"]


@final
@register
@dataclass(frozen=True)
class Temperature(Recalibration):
    """Recalibration Σ' = temperature² Σ: one factor on every standard deviation.

    Networks are usually overconfident: temperature > 1. Means and correlations do not change. With
    q the squared Mahalanobis distance of a calibration row's m observed targets (m = d without
    missing values), there are two ways to fit the factor, which agree in the limit of many rows if
    errors are normal and Σ is right up to a factor:

    * `objective="likelihood"`: with `robust=False`, the maximum-likelihood factor, temperature² =
      Σ q / Σ m, which is mean(q)/d without missing values; one row can make it as large as one
      likes. By default, no row counts more than one at the distance that 1 % exceed, q₉₉:
      temperature² = s with Σ min(q/s, q₉₉) = Σ E min(Q, q₉₉), Q ~ χ²ₘ (for a Student's t, q times
      the weight (ν + m)/(ν + q)). One row of 100 moves it by 5 % at most (d = 1); it breaks down
      at 15 % of odd rows (d = 1); its efficiency for normal errors, simulated, is 97 % (d = 1),
      96 % (d = 3) and 98 % (d = 10).
    * `objective="coverage"` gives the regions of one level their nominal coverage: temperature² is
      the ⌈(n + 1) level⌉-th smallest q/χ²_{m, level} of n rows, χ²_{m, level} the quantile of the
      χ² distribution with m degrees of freedom. This puts the radius of `SplitConformal` into Σ:
      if the calibration rows and a new row are exchangeable, the calibrated ellipsoid of that level
      contains the observed targets of the new row with probability ≥ level, for any distribution
      of the errors. The rank is at most one more than ⌈n level⌉, which makes the guarantee hold
      even for few rows.

    Of a mixture, all components get the same factor, and stay where they are: the likelihood is
    then maximized by an EM algorithm, and regions are those of highest density, found by draws
    (the coverage of the calibration rows is then met to about a percent).

    If errors are heavier-tailed than predicted, the maximum-likelihood factor follows the few large
    errors and makes the 90 % regions of all rows too large. Regions of other
    levels have their nominal coverage only as far as errors are normal; for all levels at once, see
    `RadialIsotonic`.

    Args:
        temperature: float > 0, factor on the standard deviations.

    Raises:
        ValueError: temperature is not positive.

    Source: the multivariate form of Levi et al., "Evaluating and calibrating uncertainty
    prediction in regression tasks", Sensors 22 (2022); for the coverage of complete rows, Johnstone
    & Cox, "Conformal uncertainty sets for robust optimization", COPA 2021.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal(np.zeros((4, 1)), covariance=np.ones((4, 1, 1)))
    >>> calibration = Temperature.fit(normal, [[2.0], [-2.0], [2.0], [-2.0]], robust=False)
    >>> calibration
    Temperature(temperature=2.0)
    >>> calibration.apply(normal).stddev[0]
    array([2.])

    """

    takes_gaps: ClassVar[bool] = True
    takes_mixtures: ClassVar[bool] = True

    temperature: float

    def __post_init__(self) -> None:
        if positive(self.temperature, "temperature").ndim:
            raise ValueError(f"temperature={self.temperature!r} must be one positive number.")

    @classmethod
    def fit(
        cls,
        normal: Distribution,
        y: Any,
        missing: str = "raise",
        objective: str = "likelihood",
        level: float = 0.9,
        robust: bool = True,
    ) -> Self:
        """Fit the temperature to predictions for rows that were not used for training.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), observed values, one row per distribution.
            missing: "marginalize" treats NaN in y as missing; by default NaN is an error. Rows
                with no observed target do not count.
            objective: "likelihood" or "coverage", as above.
            level: float between 0 and 1, target coverage for "coverage".
            robust: bool, whether the influence of each row on "likelihood" is bounded.

        Raises:
            ValueError: there are no rows, shapes do not match, values are not finite, all
                predictions are exact, objective is unknown, level is not between 0 and 1, or there
                are fewer than level/(1 − level) rows for "coverage" (9 for 0.9).

        """
        if objective not in _SQUARES:
            raise ValueError(
                f"objective={objective!r} is not known. Expected one of {sorted(_SQUARES)}."
            )
        probability(level, "level")
        require_components(normal, "Temperature.fit")
        rows = matched_rows(normal, y, missing, "Temperature.fit", every_target=False)
        several = len(rows.answer.parts() or ()) > 1
        square = (_SQUARES_OF_COMPONENTS if several else _SQUARES)[objective](rows, level, robust)
        if square == 0.0:
            raise ValueError(
                "Temperature.fit: every prediction equals y (with objective='coverage', a fraction "
                "`level` of them), so the temperature would be 0. Are y and the predicted means "
                "the same array?"
            )
        return cls(math.sqrt(square))

    def _apply_to_normal(self, normal: Any) -> Any:
        return normal.rescale(self.temperature)

    def _apply_to_model(self, model: keras.Model) -> keras.Model:
        return with_scaled_errors(model, np.array(self.temperature))


def most_likely_square(law: RadialLaw, squares: Array, count: Array, robust: bool) -> float:
    """Return the s at which the mean of q/s, each row weighted, is the mean count.

    Args:
        law: the law of the radius of each row, or one for all.
        squares: q, (n,), squared distances.
        count: (n,), numbers of observed targets.
        robust: whether the influence of each row is bounded.

    """
    start = squares.sum() / count.sum()
    found, before = start, math.nan
    while found > _SMALLEST * start and not abs(found - before) <= 1e-12 * found:
        before = found  # EM; one step for a normal's likelihood
        weights = row_weights(law, squares / before, count, robust)
        found = (weights * squares).sum() / count.sum()
    if robust and found <= _SMALLEST * start:  # so many predictions are exact that the rest is odd
        return most_likely_square(law, squares, count, robust=False)
    return float(found)


def _most_likely(rows: Observations, _: float, robust: bool) -> float:
    return most_likely_square(rows.law, rows.squared_distances, rows.count, robust)


def _covering(rows: Observations, level: float, _: bool) -> float:
    used = rows.count > 0
    count, index = rows.count[used], np.flatnonzero(used)
    limits = np.empty(len(index))
    for m in np.unique(count):
        law = rows.law.take(index[count == m])
        limits[count == m] = law.squared_radius(level, int(m))
    square = conformal_quantile(rows.squared_distances[used] / limits, level)
    if math.isinf(square):
        raise too_few_rows("Temperature.fit", len(index), level)
    return square


_SMALLEST = 1e-30
"""Share of the likelihood's result below which the robust one is 0."""

_SQUARES = {"likelihood": _most_likely, "coverage": _covering}

_SQUARES_OF_COMPONENTS = {
    "likelihood": most_likely_square_of_components,
    "coverage": covering_square_of_components,
}
