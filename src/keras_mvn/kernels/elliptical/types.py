"""Inputs and outputs of the operation, shared by all paths."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn._core.types import Tensor

__all__ = ["GPU_STRUCTURES", "STRUCTURES", "Elliptical", "Request", "kept_columns", "not_on_gpu"]

STRUCTURES = {"cholesky": 0, "precision_cholesky": 1, "low_rank": 2}
"""Numbers in native/core/elliptical.h, by `Covariance.fused_form`."""

GPU_STRUCTURES = ("cholesky", "precision_cholesky")
"""Structures that the kernels of triton.py and pallas.py support."""


def kept_columns(structure: int, d: int, width: int) -> int:
    """Return the number of columns of z that the forward pass keeps.

    It is `kmvn_kept` of native/core/elliptical.h.

    Args:
        structure: int, one of the numbers in `STRUCTURES`.
        d: int, number of targets.
        width: int, number of columns of y_pred, without trailing ones.

    """
    rank = width // d - 2
    return rank * (1 + rank) if structure == STRUCTURES["low_rank"] else d


def not_on_gpu(structure: str, gaps: bool, device: str) -> str | None:
    """Return why there is no GPU kernel for a structure, or for missing values; or None."""
    if structure not in GPU_STRUCTURES:
        return f"the kernel for {device} does not support {structure}."
    return f'the kernel for {device} does not support missing="marginalize".' if gaps else None


class Elliptical(NamedTuple):
    """Output of the operation: what an elliptical density needs for each row."""

    mean: Tensor
    """(..., d); with `fixed_mean`, differentiate this, not a slice of y_pred."""
    squared_mahalanobis: Tensor
    """(...), ‖z‖² of the observed targets."""
    half_log_det: Tensor
    """(...), ½ log det Σ of the observed targets."""
    variance: Tensor | None
    """(..., d), the diagonal of Σ, without a gradient; None if not requested."""
    trailing: Tensor | None = None
    """(...), the column of y_pred behind those of the structure, such as ν; differentiate this, not
    a slice of y_pred. None if there is none, or no kernel that reads around it."""


class Request(NamedTuple):
    """Options of a call."""

    structure: str | None
    """The kernels' name for the form of `shape_params`; None if they do not support it."""
    fixed_mean: bool
    variance: bool
    trailing: int = 0
    """Number of columns, 0 or 1, behind those of the structure."""

    @property
    def variance_in_kernel(self) -> bool:
        """Whether the kernel computes variances; for a precision, one pass is not enough."""
        return self.variance and self.structure != "precision_cholesky"
