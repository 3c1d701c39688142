"""What the operators for PyTorch share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from keras_mvn.kernels import _native

__all__ = [
    "Pass",
    "address",
    "differentiated",
    "in_dtype",
    "native_reason",
    "rows_contiguous",
    "unsupported_dtype",
]


@torch.compiler.assume_constant_result
def native_reason() -> str | None:
    """Why there is no native library; None if there is. Loaded once, so torch.compile may know."""
    return _native.library().reason


def unsupported_dtype(tensor: torch.Tensor) -> str | None:
    """Why kernels cannot take it; None if they can."""
    if tensor.dtype in (torch.float32, torch.float64):
        return None
    return f"the tensors are {tensor.dtype}."


def in_dtype(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Itself, if it has this dtype: `to` costs more than the question."""
    return x if x.dtype == dtype else x.to(dtype)


def rows_contiguous(matrix: torch.Tensor) -> torch.Tensor:
    """Itself, if what stands in a row is contiguous; else a copy."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


class Pass(NamedTuple):
    """One direction of an operation: its operator, and the function that this calls on the CPU."""

    operator: Callable[..., Any]
    compute: Callable[..., Any]


def differentiated(
    forward: Pass,
    backward: Pass,
    keep: Callable[..., None],
    differentiate: Callable[..., Any],
    shown: Callable[..., Any] = lambda inputs, output: output,
) -> Callable[..., Any]:
    """The operation with its gradient: the operator, or what it calls where nothing looks on.

    The detours of `torch.library` cost more than the arithmetic of a small batch.

    Args:
        forward: from inputs to outputs.
        backward: called by `differentiate`.
        keep: `setup_context` of PyTorch.
        differentiate: (function of the backward pass, ctx, *cotangents) → gradients.
        shown: (inputs, output) → the first outputs, None for those that nobody reads: all that
            the direct way returns, as every output costs it some microseconds.

    """
    operator: Any = forward.operator
    once = torch.autograd.function.once_differentiable
    operator.register_autograd(
        once(functools.partial(differentiate, backward.operator)), setup_context=keep
    )

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = forward.compute(*inputs)
            keep(ctx, inputs, output)
            return shown(inputs, output)

        @staticmethod
        @once
        def backward(ctx: Any, *bars: Any) -> Any:
            return differentiate(backward.compute, ctx, *bars)

    def call(*inputs: Any) -> Any:
        first = inputs[0]
        plain = type(first) in (torch.Tensor, torch.nn.Parameter) and first.device.type == "cpu"
        return (operator if torch.compiler.is_compiling() or not plain else Direct.apply)(*inputs)

    return call


def address(x: torch.Tensor | None) -> int:
    """Of its memory; 0 for nothing and for empty tensors."""
    return 0 if x is None else x.data_ptr()
