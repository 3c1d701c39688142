"""Code shared by the PyTorch operators."""

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
    """Return why the native library is missing, or None; constant, so torch.compile may fold it."""
    return _native.library().reason


def unsupported_dtype(tensor: torch.Tensor) -> str | None:
    """Return the reason why kernels do not support the tensor's dtype; None if they do."""
    if tensor.dtype in (torch.float32, torch.float64):
        return None
    return f"the tensors are {tensor.dtype}."


def in_dtype(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return x in this dtype; checking first is cheaper than calling `to`."""
    return x if x.dtype == dtype else x.to(dtype)


def rows_contiguous(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix itself if each row is contiguous, else a contiguous copy."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


class Pass(NamedTuple):
    """One pass of an operation: its operator, and the function that it calls on the CPU."""

    operator: Callable[..., Any]
    compute: Callable[..., Any]


def differentiated(
    forward: Pass,
    backward: Pass,
    keep: Callable[..., None],
    differentiate: Callable[..., Any],
    shown: Callable[..., Any] = lambda inputs, output: output,
) -> Callable[..., Any]:
    """Return an operation with its gradient, which bypasses the operator for plain CPU tensors.

    The overhead of `torch.library` exceeds the cost of the arithmetic for a small batch.

    Args:
        forward: the forward pass, from inputs to outputs.
        backward: the backward pass, called by `differentiate`.
        keep: `setup_context` of PyTorch.
        differentiate: function (function of the backward pass, ctx, *cotangents) → gradients.
        shown: function (inputs, output) → the first outputs, with None for unused ones. The
            direct path returns only these, as every output costs it a few microseconds.

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
    """Return the memory address of a tensor; 0 for None and for empty tensors."""
    return 0 if x is None else x.data_ptr()
