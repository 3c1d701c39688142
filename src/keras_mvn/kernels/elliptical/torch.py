"""PyTorch on the CPU: the native kernels as operators of `torch.library`.

Operators, so that `torch.compile` and `torch.export` see through them; the C interface gets the
addresses of the tensors, so that no PyTorch is needed to build the library.
"""

from __future__ import annotations

from typing import Any

import torch

from keras_mvn._rows import Targets
from keras_mvn.kernels import _native
from keras_mvn.kernels.elliptical import _calling
from keras_mvn.kernels.elliptical.types import STRUCTURES, Elliptical, Request

__all__ = ["elliptical", "supports"]


def supports(packed: torch.Tensor) -> str | None:
    """Why there is no fast path for this tensor; None if there is."""
    if packed.device.type != "cpu":
        return f"the tensors are on {packed.device.type}."
    if packed.dtype not in (torch.float32, torch.float64):
        return f"the tensors are {packed.dtype}."
    return _native.library().reason


def elliptical(request: Request, packed: torch.Tensor, targets: Targets) -> Elliptical:
    """As `kernels.elliptical.elliptical`."""
    d = targets.values.shape[-1]
    batch = packed.shape[:-1]
    rows = packed.reshape(-1, packed.shape[-1])
    values = targets.values.reshape(-1, d)
    observed = None if targets.observed is None else targets.observed.reshape(-1, d)
    assert request.structure is not None
    structure = STRUCTURES[request.structure]
    mean, mahalanobis, log_scale, variance, _, _ = _forward(
        rows, values, observed, structure, request.fixed_mean, request.variance_in_kernel
    )
    return Elliptical(
        mean.reshape(*batch, d) if request.fixed_mean else packed[..., :d],
        mahalanobis.reshape(batch),
        log_scale.reshape(batch),
        variance.reshape(*batch, d) if request.variance_in_kernel else None,
    )


_Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@torch.library.custom_op("keras_mvn::elliptical", mutates_args=(), device_types="cpu")
def _forward(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
    variance: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(mean, mahalanobis, log_scale, variance, z, v); mean and variance empty if not wanted."""
    y_pred = y_pred if y_pred.stride(1) == 1 else y_pred.contiguous()
    y, observed = y.contiguous(), None if observed is None else observed.contiguous()
    made = _outputs(y_pred, y, observed, structure, fixed_mean, variance)
    mean, mahalanobis, log_scale, variances, z, v = made
    if fixed_mean:
        mean.copy_(y_pred[:, : y.shape[1]])
    _calling.forward(
        y_pred.element_size(),
        torch.get_num_threads(),
        structure,
        *y.shape,
        y_pred.stride(0),
        *(_address(x) for x in (y_pred, y, observed, mahalanobis, log_scale, variances, z, v)),
    )
    return made


@_forward.register_fake
def _outputs(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
    variance: bool,
) -> _Outputs:
    rows, d = y.shape
    return (
        y_pred.new_empty((rows, d) if fixed_mean else (0, d)),
        y_pred.new_empty((rows,)),
        y_pred.new_empty((rows,)),
        y_pred.new_empty((rows, d) if variance else (0, d)),
        y_pred.new_empty((rows, d)),
        y_pred.new_empty((rows, d)),
    )


@torch.library.custom_op("keras_mvn::elliptical_backward", mutates_args=(), device_types="cpu")
def _backward(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    z: torch.Tensor,
    v: torch.Tensor,
    mahalanobis_bar: torch.Tensor,
    log_scale_bar: torch.Tensor,
    mean_bar: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
) -> torch.Tensor:
    """y_pred_bar."""
    y_pred = y_pred if y_pred.stride(1) == 1 else y_pred.contiguous()
    kept = [
        None if x is None else x.contiguous()
        for x in (y, observed, z, v, mahalanobis_bar, log_scale_bar, mean_bar)
    ]
    y_pred_bar = torch.empty_like(y_pred, memory_format=torch.contiguous_format)
    _calling.backward(
        y_pred.element_size(),
        torch.get_num_threads(),
        structure,
        int(fixed_mean),
        *y.shape,
        y_pred.stride(0),
        *(_address(x) for x in (y_pred, *kept, y_pred_bar)),
    )
    return y_pred_bar


@_backward.register_fake
def _(y_pred: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(y_pred, memory_format=torch.contiguous_format)


def _address(x: torch.Tensor | None) -> int:
    """0 for nothing and for empty tensors."""
    return 0 if x is None else x.data_ptr()


def _keep(ctx: Any, inputs: tuple[Any, ...], output: _Outputs) -> None:
    y_pred, y, observed, ctx.structure, ctx.fixed_mean, _ = inputs
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(y_pred, y, observed, *output[4:])


def _differentiate(ctx: Any, *bars: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    mean_bar, mahalanobis_bar, log_scale_bar = bars[:3]
    y_pred, y, observed, z, v = ctx.saved_tensors
    y_pred_bar = y_bar = None
    if ctx.needs_input_grad[0]:
        y_pred_bar = _backward(
            y_pred, y, observed, z, v, mahalanobis_bar, log_scale_bar,
            mean_bar if ctx.fixed_mean else None, ctx.structure, ctx.fixed_mean,
        )  # fmt: skip
    if ctx.needs_input_grad[1]:
        y_bar = 2.0 * mahalanobis_bar[:, None] * v / y_pred[:, y.shape[1] : 2 * y.shape[1]]
    return y_pred_bar, y_bar, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)
