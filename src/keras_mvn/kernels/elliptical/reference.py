"""Reference in `keras.ops`: the structure's own arithmetic defines the result."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_mvn.kernels.elliptical.types import Elliptical, Request
from keras_mvn.layouts._y_true import Targets

__all__ = ["elliptical"]


def elliptical(covariance: Any, targets: Targets, parameters: Any, request: Request) -> Elliptical:
    """Compute `kernels.elliptical.elliptical` for any structure and layout."""
    mean, scale, shape_params = parameters
    located = ops.stop_gradient(mean) if request.fixed_mean else mean
    z, half_log_det = covariance.standardize(
        targets.values - located, scale, shape_params, targets.observed
    )
    variance = None
    if request.variance:
        variance = ops.stop_gradient(covariance.variance(scale, shape_params))
    return Elliptical(mean, ops.sum(z * z, axis=-1), half_log_det, variance)
