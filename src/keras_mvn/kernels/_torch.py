"""What the operators for PyTorch share."""

from __future__ import annotations

import torch

from keras_mvn.kernels import _native

__all__ = ["address", "native_reason", "rows_contiguous", "unsupported_dtype"]


@torch.compiler.assume_constant_result
def native_reason() -> str | None:
    """Why there is no native library; None if there is. Loaded once, so torch.compile may know."""
    return _native.library().reason


def unsupported_dtype(tensor: torch.Tensor) -> str | None:
    """Why kernels cannot take it; None if they can."""
    if tensor.dtype in (torch.float32, torch.float64):
        return None
    return f"the tensors are {tensor.dtype}."


def rows_contiguous(matrix: torch.Tensor) -> torch.Tensor:
    """Itself, if what stands in a row is contiguous; else a copy."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def address(x: torch.Tensor | None) -> int:
    """Of its memory; 0 for nothing and for empty tensors."""
    return 0 if x is None else x.data_ptr()
