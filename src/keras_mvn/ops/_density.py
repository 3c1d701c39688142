"""The negative log-likelihood of each row, shared by losses, metrics and `ops`."""

from __future__ import annotations

import math

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.kernels import Elliptical, elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets

__all__ = ["from_elliptical", "row_negative_log_likelihood"]


def row_negative_log_likelihood(
    covariance: Covariance, targets: Targets, parameters: Parameters, fused: bool | None = None
) -> Tensor:
    """Return −log p of the observed targets of each row (...), in nats, for losses and metrics."""
    return from_elliptical(elliptical(covariance, targets, parameters, fused=fused), targets)


def from_elliptical(found: Elliptical, targets: Targets) -> Tensor:
    """Return −log p of the observed targets (...), in nats, from distance and half_log_det."""
    half_log_2pi = 0.5 * math.log(2.0 * math.pi)
    return (
        0.5 * found.squared_mahalanobis
        + found.half_log_det
        + targets.observed_count() * half_log_2pi
    )
