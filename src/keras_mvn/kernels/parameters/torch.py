"""Fast path for PyTorch on the CPU: the native kernels as operators of `torch.library`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from keras_mvn.kernels import _native
from keras_mvn.kernels._torch import (
    Pass,
    address,
    differentiated,
    in_dtype,
    native_reason,
    unsupported_dtype,
)
from keras_mvn.kernels.parameters import _calling
from keras_mvn.kernels.parameters.types import Emitted, Origin, without_penalty

__all__ = ["made_by", "parameters", "supports"]


def supports(raw: torch.Tensor) -> str | None:
    """Return the reason why there is no fast path for this tensor; None if there is one."""
    if raw.device.type != "cpu":
        return f"the tensors are on {raw.device.type}."
    return unsupported_dtype(raw) or native_reason()


def made_by(raw: torch.Tensor) -> str:
    """Return the implementation of the fast path."""
    return _native.library().made_by


def parameters(
    raw: torch.Tensor,
    origin: Origin,
    radius: float,
    bias: torch.Tensor | None,
    strengths: torch.Tensor | None,
) -> Emitted:
    """Compute `kernels.parameters.parameters` on the fast path."""
    rows = raw.reshape(-1, raw.shape[-1])
    if bias is None:
        bias = raw.new_zeros(raw.shape[-1])
    constants = (in_dtype(x, raw.dtype) for x in (bias, *origin))
    strong = None if strengths is None else in_dtype(strengths, raw.dtype)
    y_pred, penalty = _with_gradient(rows, *constants, strong, radius)
    return Emitted(
        y_pred.reshape(raw.shape), None if strengths is None else penalty.reshape(raw.shape[:-1])
    )


def _compute_forward(
    raw: torch.Tensor,
    bias: torch.Tensor,
    origin_mean: torch.Tensor,
    origin_stddev: torch.Tensor,
    origin_scale: torch.Tensor,
    origin_shape: torch.Tensor,
    floor: torch.Tensor,
    strengths: torch.Tensor | None,
    radius: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (y_pred, penalty); the penalty is empty without shrinkage."""
    origin = (origin_mean, origin_stddev, origin_scale, origin_shape, floor)
    given = (raw, bias, *origin, strengths)
    y_pred, penalty = _outputs(*given, radius)
    _call(_calling.forward, raw, origin_mean, radius, (*given, y_pred, penalty))
    return y_pred, penalty


_forward = torch.library.custom_op(
    "keras_mvn::parameters", _compute_forward, mutates_args=(), device_types="cpu"
)


@_forward.register_fake
def _outputs(
    raw: torch.Tensor,
    bias: torch.Tensor,
    origin_mean: torch.Tensor,
    origin_stddev: torch.Tensor,
    origin_scale: torch.Tensor,
    origin_shape: torch.Tensor,
    floor: torch.Tensor,
    strengths: torch.Tensor | None,
    radius: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty_like(raw), raw.new_empty(0 if strengths is None else len(raw))


def _compute_backward(
    raw: torch.Tensor,
    bias: torch.Tensor,
    origin_stddev: torch.Tensor,
    origin_scale: torch.Tensor,
    strengths: torch.Tensor | None,
    y_pred_bar: torch.Tensor,
    penalty_bar: torch.Tensor | None,
    radius: float,
) -> torch.Tensor:
    """Return raw_bar."""
    raw_bar = _empty_like(raw)
    given = (raw, bias, origin_stddev, origin_scale, strengths, y_pred_bar, penalty_bar)
    _call(_calling.backward, raw, origin_scale, radius, (*given, raw_bar))
    return raw_bar


_backward = torch.library.custom_op(
    "keras_mvn::parameters_backward", _compute_backward, mutates_args=(), device_types="cpu"
)


@_backward.register_fake
def _empty_like(x: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _call(
    kernel: Any, raw: torch.Tensor, origin: torch.Tensor, radius: float, tensors: Any
) -> None:
    d, width = len(origin), raw.shape[1]
    # Outputs are already contiguous.
    contiguous = [None if x is None else x.contiguous() for x in tensors]
    addresses = (address(x) for x in contiguous)
    threads = torch.get_num_threads()
    kernel(raw.element_size(), threads, len(raw), d, width - 2 * d, radius, *addresses)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    raw, bias, _, origin_stddev, origin_scale, _, _, strengths, ctx.radius = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(raw, bias, origin_stddev, origin_scale, strengths)


def _differentiate(
    backward: Callable[..., torch.Tensor],
    ctx: Any,
    y_pred_bar: torch.Tensor | None,
    penalty_bar: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    raw, *_, strengths = ctx.saved_tensors
    if y_pred_bar is None:
        y_pred_bar = torch.zeros_like(raw)
    raw_bar = backward(*ctx.saved_tensors, y_pred_bar, penalty_bar, ctx.radius)
    bias_bar = None
    if ctx.needs_input_grad[1]:
        bias_bar = raw_bar.sum(dim=0)
        if penalty_bar is not None:
            bias_bar = torch.cat(without_penalty(bias_bar, raw, strengths, penalty_bar))
    return raw_bar, bias_bar, *[None] * 7


def _shown(inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    y_pred, penalty = output
    return y_pred, None if inputs[7] is None else penalty


_with_gradient = differentiated(
    Pass(_forward, _compute_forward),
    Pass(_backward, _compute_backward),
    _keep,
    _differentiate,
    _shown,
)
