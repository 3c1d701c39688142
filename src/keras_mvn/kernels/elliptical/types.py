"""What goes into the operation and what comes out, on every path."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn.types import Tensor

__all__ = ["STRUCTURES", "Elliptical", "Request"]

STRUCTURES = {"cholesky": 0, "precision_cholesky": 1}
"""`Covariance.fused_form` → the numbers of native/core/elliptical.h."""


class Elliptical(NamedTuple):
    """What an elliptical density needs of a row."""

    mean: Tensor
    """(..., d); differentiate this one, not a slice of y_pred, where the mean was fixed."""
    mahalanobis: Tensor
    """‖z‖² of what was observed: (...)."""
    log_scale: Tensor
    """½ log det Σ of what was observed: (...)."""
    variance: Tensor | None
    """The diagonal of Σ, (..., d), without a gradient; None if it was not asked for."""


class Request(NamedTuple):
    """What is wanted."""

    structure: str | None
    """The form of `shape_params` under which kernels know it."""
    fixed_mean: bool
    variance: bool

    @property
    def variance_in_kernel(self) -> bool:
        """Row sums of I + N; those of its inverse are not a matter of one pass."""
        return self.variance and self.structure == "cholesky"
