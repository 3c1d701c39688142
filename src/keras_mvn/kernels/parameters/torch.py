"""PyTorch on the CPU: the native kernels as operators of `torch.library`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from keras_mvn.kernels import _native
from keras_mvn.kernels._torch import address, native_reason, unsupported_dtype
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


def parameters(
    raw_mean: torch.Tensor, raw: torch.Tensor, origin: Origin, radius: float
) -> torch.Tensor:
    """As `kernels.parameters.parameters`."""
    batch = raw.shape[:-1]
    rows = (x.reshape(-1, x.shape[-1]) for x in (raw_mean, raw))
    y_pred = _forward(*rows, *(x.to(raw.dtype) for x in origin), radius)
    return y_pred.reshape(*batch, -1)


@torch.library.custom_op("keras_mvn::parameters", mutates_args=(), device_types="cpu")
def _forward(
    raw_mean: torch.Tensor,
    raw: torch.Tensor,
    origin_mean: torch.Tensor,
    origin_stddev: torch.Tensor,
    origin_scale: torch.Tensor,
    origin_shape: torch.Tensor,
    radius: float,
) -> torch.Tensor:
    """y_pred."""
    given = [
        x.contiguous()
        for x in (raw_mean, raw, origin_mean, origin_stddev, origin_scale, origin_shape)
    ]
    y_pred = _y_pred(*given, radius)
    _call(_calling.forward, raw, raw_mean.shape[1], radius, [*given, y_pred])
    return y_pred


@_forward.register_fake
def _y_pred(raw_mean: torch.Tensor, raw: torch.Tensor, *_: object) -> torch.Tensor:
    return raw.new_empty((raw.shape[0], raw_mean.shape[1] + raw.shape[1]))


@torch.library.custom_op("keras_mvn::parameters_backward", mutates_args=(), device_types="cpu")
def _backward(
    y_pred_bar: torch.Tensor,
    raw: torch.Tensor,
    origin_stddev: torch.Tensor,
    origin_scale: torch.Tensor,
    radius: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(raw_mean_bar, raw_bar)."""
    given = [x.contiguous() for x in (raw, origin_stddev, origin_scale, y_pred_bar)]
    raw_mean_bar, raw_bar = bars = _bars(y_pred_bar, raw, origin_stddev)
    _call(_calling.backward, raw, raw_mean_bar.shape[1], radius, [*given, raw_mean_bar, raw_bar])
    return bars


@_backward.register_fake
def _bars(
    y_pred_bar: torch.Tensor, raw: torch.Tensor, origin_stddev: torch.Tensor, *_: object
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width = raw.shape
    return raw.new_empty((rows, origin_stddev.shape[0])), raw.new_empty((rows, width))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, raw, _, origin_stddev, origin_scale, _, ctx.radius = inputs
    ctx.save_for_backward(raw, origin_stddev, origin_scale)


@torch.autograd.function.once_differentiable
def _differentiate(ctx: Any, y_pred_bar: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    bars = _backward(y_pred_bar, *ctx.saved_tensors, ctx.radius)
    return *bars, None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _call(
    kernel: Any, raw: torch.Tensor, d: int, radius: float, tensors: Sequence[torch.Tensor]
) -> None:
    rows, width = raw.shape
    threads = torch.get_num_threads()
    addresses = (address(x) for x in tensors)
    kernel(raw.element_size(), threads, rows, d, width - d, radius, *addresses)
