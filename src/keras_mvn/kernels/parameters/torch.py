"""PyTorch on the CPU: the native kernels as operators of `torch.library`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from keras_mvn.kernels import _native
from keras_mvn.kernels._torch import (
    Pass,
    address,
    differentiated,
    native_reason,
    unsupported_dtype,
)
from keras_mvn.kernels.parameters import _calling
from keras_mvn.kernels.parameters.types import Origin

__all__ = ["made_by", "parameters", "supports"]


def supports(raw: torch.Tensor) -> str | None:
    """Why there is no fast path for this tensor; None if there is."""
    if raw.device.type != "cpu":
        return f"the tensors are on {raw.device.type}."
    return unsupported_dtype(raw) or native_reason()


def made_by(raw: torch.Tensor) -> str:
    """What the fast path is made of."""
    return _native.library().made_by


def parameters(raw: torch.Tensor, origin: Origin, radius: float) -> torch.Tensor:
    """As `kernels.parameters.parameters`."""
    rows = raw.reshape(-1, raw.shape[-1])
    return _with_gradient(rows, *(x.to(raw.dtype) for x in origin), radius).reshape(raw.shape)


def _compute_forward(
    raw: torch.Tensor,
    origin_mean: torch.Tensor,
    origin_stddev: torch.Tensor,
    origin_scale: torch.Tensor,
    origin_shape: torch.Tensor,
    radius: float,
) -> torch.Tensor:
    """y_pred."""
    given = (raw, origin_mean, origin_stddev, origin_scale, origin_shape)
    y_pred = _empty_like(raw)
    _call(_calling.forward, raw, origin_mean, radius, (*given, y_pred))
    return y_pred


_forward = torch.library.custom_op(
    "keras_mvn::parameters", _compute_forward, mutates_args=(), device_types="cpu"
)


def _compute_backward(
    y_pred_bar: torch.Tensor,
    raw: torch.Tensor,
    origin_stddev: torch.Tensor,
    origin_scale: torch.Tensor,
    radius: float,
) -> torch.Tensor:
    """raw_bar."""
    raw_bar = _empty_like(raw)
    given = (raw, origin_stddev, origin_scale, y_pred_bar)
    _call(_calling.backward, raw, origin_scale, radius, (*given, raw_bar))
    return raw_bar


_backward = torch.library.custom_op(
    "keras_mvn::parameters_backward", _compute_backward, mutates_args=(), device_types="cpu"
)


@_forward.register_fake
@_backward.register_fake
def _empty_like(x: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _call(
    kernel: Any, raw: torch.Tensor, origin: torch.Tensor, radius: float, tensors: Any
) -> None:
    d, width = len(origin), raw.shape[1]
    contiguous = [x.contiguous() for x in tensors]  # the last one, which is written, is so already
    addresses = (address(x) for x in contiguous)
    threads = torch.get_num_threads()
    kernel(raw.element_size(), threads, len(raw), d, width - 2 * d, radius, *addresses)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    raw, _, origin_stddev, origin_scale, _, ctx.radius = inputs
    ctx.save_for_backward(raw, origin_stddev, origin_scale)


def _differentiate(
    backward: Callable[..., torch.Tensor], ctx: Any, y_pred_bar: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    return backward(y_pred_bar, *ctx.saved_tensors, ctx.radius), *[None] * 5


_with_gradient = differentiated(
    Pass(_forward, _compute_forward), Pass(_backward, _compute_backward), _keep, _differentiate
)
