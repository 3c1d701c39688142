"""What goes into the operation and what comes out, on every path."""

from __future__ import annotations

from typing import NamedTuple

from keras_mvn._core.types import Tensor

__all__ = ["GPU_STRUCTURES", "STRUCTURES", "Elliptical", "Request", "kept_columns", "not_on_gpu"]

STRUCTURES = {"cholesky": 0, "precision_cholesky": 1, "low_rank": 2}
"""`Covariance.fused_form` → the numbers of native/core/elliptical.h."""

GPU_STRUCTURES = ("cholesky", "precision_cholesky")
"""Those that the kernels of triton.py and pallas.py know."""


def kept_columns(structure: int, d: int, width: int) -> int:
    """Columns of z, which the forward pass keeps: `kmvn_kept` of native/core/elliptical.h.

    Args:
        structure: one of the numbers in `STRUCTURES`.
        d: how many targets.
        width: columns of y_pred.

    """
    rank = width // d - 2
    return rank * (1 + rank) if structure == STRUCTURES["low_rank"] else d


def not_on_gpu(structure: str, gaps: bool, device: str) -> str | None:
    """Why there is no kernel on a GPU for this structure, or for rows with gaps; or None."""
    if structure not in GPU_STRUCTURES:
        return f"the kernel for {device} has no {structure}."
    return f'the kernel for {device} has no missing="marginalize".' if gaps else None


class Elliptical(NamedTuple):
    """What an elliptical density needs of a row."""

    mean: Tensor
    """(..., d); differentiate this one, not a slice of y_pred, where the mean was fixed."""
    squared_mahalanobis: Tensor
    """‖z‖² of what was observed: (...)."""
    half_log_det: Tensor
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
        """Sums along rows of the factor; those of an inverse are not a matter of one pass."""
        return self.variance and self.structure != "precision_cholesky"
