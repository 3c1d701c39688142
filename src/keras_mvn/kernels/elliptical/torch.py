"""Fast path for PyTorch: native kernels on the CPU, Triton on a GPU, as `torch.library` operators.

As operators, they work with `torch.compile` and `torch.export`; the C interface takes addresses of
tensors, so that building the library does not need PyTorch.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from keras_mvn.kernels import _native
from keras_mvn.kernels._torch import (
    Pass,
    address,
    differentiated,
    native_reason,
    rows_contiguous,
    unsupported_dtype,
)
from keras_mvn.kernels.elliptical import _calling
from keras_mvn.kernels.elliptical.types import (
    STRUCTURES,
    Elliptical,
    Request,
    kept_columns,
    not_on_gpu,
)
from keras_mvn.layouts._y_true import Targets

__all__ = ["elliptical", "made_by", "reads_around", "supports"]


HAS_TRITON = importlib.util.find_spec("triton") is not None


def supports(packed: torch.Tensor, structure: str, gaps: bool) -> str | None:
    """Return why there is no fast path; None if there is one. `gaps`: rows may be incomplete."""
    unsupported = unsupported_dtype(packed)
    if unsupported is not None:
        return unsupported
    if packed.device.type == "cpu":
        return native_reason()
    if packed.device.type != "cuda":
        return f"the tensors are on {packed.device.type}."
    if not HAS_TRITON:
        return "the tensors are on cuda, but Triton is not installed; run `pip install triton`."
    return not_on_gpu(structure, gaps, "cuda")


def made_by(packed: torch.Tensor) -> str:
    """Return the implementation of the fast path for this tensor."""
    return _native.library().made_by if packed.device.type == "cpu" else "triton"


def _triton() -> ModuleType:
    """Return the module of the Triton kernels, which the first call on a GPU imports."""
    return importlib.import_module("keras_mvn.kernels.elliptical.triton")


def reads_around(whole: torch.Tensor) -> bool:
    """Whether there is a kernel for y_pred with a trailing column."""
    return whole.device.type == "cpu"


def elliptical(request: Request, packed: torch.Tensor, targets: Targets) -> Elliptical:
    """Compute `kernels.elliptical.elliptical` on the fast path."""
    d = targets.values.shape[-1]
    batch = packed.shape[:-1]
    rows = packed.reshape(-1, packed.shape[-1])
    values = targets.values.reshape(-1, d)
    observed = None if targets.observed is None else targets.observed.reshape(-1, d)
    assert request.structure is not None
    structure = STRUCTURES[request.structure]
    mean, trailing, squared_mahalanobis, half_log_det, variance, *_ = _with_gradient(
        rows, values, observed, structure, request.fixed_mean, request.variance_in_kernel,
        request.trailing,
    )  # fmt: skip
    return Elliptical(
        mean.reshape(*batch, d) if request.fixed_mean else packed[..., :d],
        squared_mahalanobis.reshape(batch),
        half_log_det.reshape(batch),
        variance.reshape(*batch, d) if request.variance_in_kernel else None,
        trailing.reshape(batch) if request.trailing else None,
    )


_Outputs = tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor
]


def _compute_forward(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
    variance: bool,
    trailing: int,
) -> tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor
]:
    """Return (mean, trailing, squared_mahalanobis, half_log_det, variance, z, v), or empty ones."""
    y_pred = rows_contiguous(y_pred)
    y, observed = y.contiguous(), None if observed is None else observed.contiguous()
    made = _outputs(y_pred, y, observed, structure, fixed_mean, variance, trailing)
    mean, behind, squared_mahalanobis, half_log_det, variances, z, v = made
    if fixed_mean:
        mean.copy_(y_pred[:, : y.shape[1]])
    if trailing:
        behind.copy_(y_pred[:, -1])
    _calling.forward(
        y_pred.element_size(),
        torch.get_num_threads(),
        structure,
        *y.shape,
        y_pred.shape[1] - 2 * y.shape[1] - trailing,
        y_pred.stride(0),
        *(
            address(x)
            for x in (y_pred, y, observed, squared_mahalanobis, half_log_det, variances, z, v)
        ),
    )
    return made


_forward = torch.library.custom_op(
    "keras_mvn::elliptical", _compute_forward, mutates_args=(), device_types="cpu"
)


@_forward.register_kernel("cuda")
def _forward_on_gpu(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
    variance: bool,
    trailing: int,
) -> _Outputs:
    assert observed is None  # `supports` checks this
    assert not trailing  # `reads_around` says so
    y_pred = rows_contiguous(y_pred)
    made = _outputs(y_pred, y, observed, structure, fixed_mean, variance, trailing)
    mean, _, squared_mahalanobis, half_log_det, variances, z, v = made
    if fixed_mean:
        mean.copy_(y_pred[:, : y.shape[1]])
    with torch.cuda.device_of(y_pred):
        _triton().forward(
            structure, y_pred, y.contiguous(), squared_mahalanobis, half_log_det,
            variances if variance else None, z, v,
        )  # fmt: skip
    return made


@_forward.register_fake
def _outputs(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
    variance: bool,
    trailing: int,
) -> _Outputs:
    rows, d = y.shape
    kept = kept_columns(structure, d, y_pred.shape[1] - trailing)
    return (
        y_pred.new_empty((rows, d) if fixed_mean else (0, d)),
        y_pred.new_empty((rows if trailing else 0,)),
        y_pred.new_empty((rows,)),
        y_pred.new_empty((rows,)),
        y_pred.new_empty((rows, d) if variance else (0, d)),
        y_pred.new_empty((rows, kept)),
        y_pred.new_empty((rows, d)),
    )


def _compute_backward(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    z: torch.Tensor,
    v: torch.Tensor,
    squared_mahalanobis_bar: torch.Tensor,
    half_log_det_bar: torch.Tensor,
    mean_bar: torch.Tensor | None,
    trailing_bar: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
) -> torch.Tensor:
    """Return y_pred_bar."""
    y_pred = rows_contiguous(y_pred)
    kept = [
        None if x is None else x.contiguous()
        for x in (
            y, observed, z, v, squared_mahalanobis_bar, half_log_det_bar, mean_bar, trailing_bar
        )
    ]  # fmt: skip
    trailing = int(trailing_bar is not None)
    y_pred_bar = torch.empty_like(y_pred, memory_format=torch.contiguous_format)
    _calling.backward(
        y_pred.element_size(),
        torch.get_num_threads(),
        structure,
        int(fixed_mean),
        *y.shape,
        y_pred.shape[1] - 2 * y.shape[1] - trailing,
        y_pred.stride(0),
        trailing,
        *(address(x) for x in (y_pred, *kept, y_pred_bar)),
    )
    return y_pred_bar


_backward = torch.library.custom_op(
    "keras_mvn::elliptical_backward", _compute_backward, mutates_args=(), device_types="cpu"
)


@_backward.register_kernel("cuda")
def _backward_on_gpu(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    observed: torch.Tensor | None,
    z: torch.Tensor,
    v: torch.Tensor,
    squared_mahalanobis_bar: torch.Tensor,
    half_log_det_bar: torch.Tensor,
    mean_bar: torch.Tensor | None,
    trailing_bar: torch.Tensor | None,
    structure: int,
    fixed_mean: bool,
) -> torch.Tensor:
    assert observed is None  # `supports` checks this
    assert trailing_bar is None  # `reads_around` says so
    y_pred = rows_contiguous(y_pred)
    kept = [
        None if x is None else x.contiguous()
        for x in (y, z, v, squared_mahalanobis_bar, half_log_det_bar, mean_bar)
    ]
    y_pred_bar = torch.empty_like(y_pred, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(y_pred):
        _triton().backward(structure, fixed_mean, y_pred, *kept, y_pred_bar)
    return y_pred_bar


@_backward.register_fake
def _(y_pred: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(y_pred, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: _Outputs) -> None:
    y_pred, y, observed, ctx.structure, ctx.fixed_mean, _, ctx.trailing = inputs
    ctx.mark_non_differentiable(*output[4:])
    ctx.set_materialize_grads(False)  # zeros for unused outputs would cost time
    ctx.save_for_backward(y_pred, y, observed, *output[5:])


def _differentiate(
    backward: Callable[..., torch.Tensor], ctx: Any, *bars: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    y_pred, y, observed, z, v = ctx.saved_tensors
    zeros = functools.partial(y_pred.new_zeros, len(y))
    mean_bar = bars[0]
    trailing_bar, squared_mahalanobis_bar, half_log_det_bar = (
        zeros() if bar is None else bar for bar in bars[1:4]
    )
    y_pred_bar = y_bar = None
    if ctx.needs_input_grad[0]:
        y_pred_bar = backward(
            y_pred, y, observed, z, v, squared_mahalanobis_bar, half_log_det_bar,
            mean_bar if ctx.fixed_mean else None, trailing_bar if ctx.trailing else None,
            ctx.structure, ctx.fixed_mean,
        )  # fmt: skip
    if ctx.needs_input_grad[1]:
        y_bar = 2.0 * squared_mahalanobis_bar[:, None] * v / y_pred[:, y.shape[1] : 2 * y.shape[1]]
    return y_pred_bar, y_bar, None, None, None, None, None


def _shown(inputs: tuple[Any, ...], output: _Outputs) -> tuple[torch.Tensor | None, ...]:
    *_, fixed_mean, variance, trailing = inputs
    mean, behind, squared_mahalanobis, half_log_det, variances = output[:5]
    return (
        mean if fixed_mean else None,
        behind if trailing else None,
        squared_mahalanobis,
        half_log_det,
        variances if variance else None,
    )


_with_gradient = differentiated(
    Pass(_forward, _compute_forward),
    Pass(_backward, _compute_backward),
    _keep,
    _differentiate,
    _shown,
)
