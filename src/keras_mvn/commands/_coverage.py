"""One factor on all standard deviations, so that the joint region of one level covers its share."""

from __future__ import annotations

import numpy as np

from keras_mvn._chi_square import chi_square_quantile
from keras_mvn.calibration import Temperature
from keras_mvn.calibration._quantile import conformal_quantile
from keras_mvn.distribution import MultivariateNormal
from keras_mvn.types import Array

__all__ = ["LEVEL", "coverage_temperature"]

LEVEL = 0.9


def coverage_temperature(normal: MultivariateNormal, y: Array) -> Temperature:
    """The factor with which the 90 % regions of n calibration rows hold ⌈0.9 (n + 1)⌉ of them.

    The most likely factor, `Temperature.fit`, follows the few rows with large errors where errors
    are heavier-tailed than normal, and the regions of all rows are then too large. This one is the
    conformal radius put into Σ: temperature² = the quantile of q/χ²_{m, 0.9} over the rows, q the
    squared Mahalanobis distance and m the number of targets observed.

    Source: for complete rows, Johnstone & Cox, "Conformal uncertainty sets for robust
    optimization", COPA 2021.
    """
    observed = (~np.isnan(y)).sum(axis=1)
    used = observed > 0
    squared = normal.mahalanobis(y, missing="marginalize")[used] ** 2
    limits = np.array([chi_square_quantile(LEVEL, m) for m in range(1, y.shape[1] + 1)])
    ratio = conformal_quantile(squared / limits[observed[used] - 1], LEVEL)
    return Temperature(float(np.sqrt(ratio)))
