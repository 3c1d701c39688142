"""Fast path for JAX: native kernels as XLA foreign functions on the CPU, Pallas on a GPU."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from keras_mvn.kernels import _native
from keras_mvn.kernels._jax import Call, by_rows, foreign_function, platform
from keras_mvn.kernels.elliptical.types import (
    GPU_STRUCTURES,
    STRUCTURES,
    Elliptical,
    Request,
    kept_columns,
    not_on_gpu,
)
from keras_mvn.layouts._y_true import Targets

__all__ = ["elliptical", "made_by", "reads_around", "supports"]

FORWARD, BACKWARD = "elliptical_forward", "elliptical_backward"


HAS_PALLAS = importlib.util.find_spec("jax.experimental.pallas.triton") is not None


def supports(packed: jax.Array, structure: str, gaps: bool) -> str | None:
    """Return why there is no fast path; None if there is one. `gaps`: rows may be incomplete."""
    if packed.dtype not in (jnp.float32, jnp.float64):
        return f"the arrays are {packed.dtype}."
    where = platform(packed)
    if where == "cpu":
        return _native.library().reason
    if where != "gpu":
        return f"the arrays are on {where}."
    if not HAS_PALLAS:
        return "the arrays are on gpu, but this JAX has no Pallas for Triton."
    return not_on_gpu(structure, gaps, "gpu")


def made_by(packed: jax.Array) -> str:
    """Return the implementation of the fast path for this array."""
    return _native.library().made_by if platform(packed) == "cpu" else "pallas"


def _pallas() -> ModuleType:
    """Return the module of the Pallas kernels, which the first call on a GPU imports."""
    return importlib.import_module("keras_mvn.kernels.elliptical.pallas")


def reads_around(whole: jax.Array) -> bool:
    """Whether there is a kernel for y_pred with a trailing column."""
    return platform(whole) == "cpu" and jax.default_backend() == "cpu"


def elliptical(request: Request, packed: jax.Array, targets: Targets) -> Elliptical:
    """Compute `kernels.elliptical.elliptical` on the fast path."""
    d = targets.values.shape[-1]
    if packed.shape[-1] - request.trailing == 2:
        return _one_target(request, packed, targets)
    batch = packed.shape[:-1]
    observed = () if targets.observed is None else (targets.observed.reshape(-1, d),)
    rows = packed.reshape(-1, packed.shape[-1])
    mean, trailing, squared_mahalanobis, half_log_det, *variance = _differentiable(
        request, rows, targets.values.reshape(-1, d), *observed
    )
    return Elliptical(
        mean.reshape(*batch, d),
        squared_mahalanobis.reshape(batch),
        half_log_det.reshape(batch),
        variance[0].reshape(*batch, d) if variance else None,
        trailing.reshape(batch) if request.trailing else None,
    )


def _one_target(request: Request, packed: jax.Array, targets: Targets) -> Elliptical:
    """Compute one target in plain JAX, which XLA fuses with the surrounding operations."""
    mean, scale = packed[..., :1], packed[..., 1:2]
    located = jax.lax.stop_gradient(mean) if request.fixed_mean else mean
    u, half_log_det = (targets.values - located) / scale, jnp.log(scale)
    if targets.observed is not None:
        u, half_log_det = (jnp.where(targets.observed > 0, x, 0.0) for x in (u, half_log_det))
    variance = jax.lax.stop_gradient(scale * scale) if request.variance_in_kernel else None
    trailing = packed[..., 2] if request.trailing else None
    return Elliptical(mean, (u * u)[..., 0], half_log_det[..., 0], variance, trailing)


# --- the gradient --------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(
    request: Request, y_pred: jax.Array, y: jax.Array, *observed: jax.Array
) -> tuple[jax.Array, ...]:
    """Return (mean, trailing columns, squared_mahalanobis, half_log_det[, variance])."""
    return *_ends(request, y_pred, y), *_call_forward(request, False, y_pred, y, *observed)


def _ends(request: Request, y_pred: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean, and the columns behind those of the structure."""
    return y_pred[:, : y.shape[-1]], y_pred[:, y_pred.shape[-1] - request.trailing :]


def _forward(
    request: Request, y_pred: jax.Array, y: jax.Array, *observed: jax.Array
) -> tuple[tuple[jax.Array, ...], Any]:
    *values, z, v = _call_forward(request, True, y_pred, y, *observed)
    return (*_ends(request, y_pred, y), *values), (y_pred, y, z, v, observed)


def _backward(request: Request, kept: Any, bars: tuple[jax.Array, ...]) -> tuple[Any, ...]:
    y_pred, y, z, v, observed = kept
    mean_bar, trailing_bar, squared_mahalanobis_bar, half_log_det_bar = bars[:4]
    of_values = (squared_mahalanobis_bar, half_log_det_bar, mean_bar)
    behind = (trailing_bar,) * request.trailing
    y_pred_bar = _call_backward(request, y_pred, y, z, v, *of_values, *behind, *observed)
    d = y.shape[-1]
    y_bar = 2.0 * squared_mahalanobis_bar[:, None] * v / y_pred[:, d : 2 * d]
    return y_pred_bar, y_bar, *(jnp.zeros_like(x) for x in observed)


_differentiable.defvjp(_forward, _backward)


# --- the calls -----------------------------------------------------------------------------------


def _call_forward(
    request: Request, keeps: bool, y_pred: jax.Array, y: jax.Array, *observed: jax.Array
) -> tuple[jax.Array, ...]:
    """Return (squared_mahalanobis, half_log_det[, variance][, z, v]), z and v for backward."""
    results = ["b", "b", *["b d"] * request.variance_in_kernel, *["b z", "b d"] * keeps]
    structure = STRUCTURES[request.structure or ""]
    settings = (
        ("structure", structure),
        ("variance", int(request.variance_in_kernel)),
        ("trailing", request.trailing),
    )
    arguments = ("b w", "b d", *["b d"] * len(observed))
    kept = kept_columns(structure, y.shape[-1], y_pred.shape[-1] - request.trailing)
    call = _by_rows(FORWARD, settings, arguments, tuple(results), kept)
    return tuple(call(y_pred, y, *observed))


def _call_backward(request: Request, *arrays: jax.Array) -> jax.Array:
    """Return y_pred_bar."""
    settings = (
        ("structure", STRUCTURES[request.structure or ""]),
        ("fixed_mean", int(request.fixed_mean)),
        ("trailing", request.trailing),
    )
    given = (*GAPLESS[BACKWARD], *["b e"] * request.trailing)
    arguments = (*given, *["b d"] * (len(arrays) - len(given)))
    (y_pred_bar,) = _by_rows(BACKWARD, settings, arguments, ("b w",))(*arrays)
    return y_pred_bar


@functools.cache
def _by_rows(
    name: str,
    settings: tuple[tuple[str, int], ...],
    arguments: tuple[str, ...],
    results: tuple[str, ...],
    kept: int = 0,
) -> Call:
    """Return the kernel; the axes are b rows, w columns of y_pred, d, and z kept columns."""
    known = [STRUCTURES[name] for name in GPU_STRUCTURES]
    choose = functools.partial(
        _by_platform,
        foreign_function(name, arguments, results, {"z": kept}, dict(settings)),
        functools.partial(_pallas_call, name, dict(settings), len(results)),
        arguments == GAPLESS[name] and dict(settings)["structure"] in known,
    )
    return by_rows(choose, arguments, results)


GAPLESS = {
    FORWARD: ("b w", "b d"),
    BACKWARD: ("b w", "b d", "b z", "b d", "b", "b", "b d"),
}
"""Axes of the arguments for complete rows: y_pred and y; backward, also z, v and cotangents."""


def _by_platform(
    native: Call, pallas: Call, pallas_has_it: bool, *arrays: jax.Array
) -> list[jax.Array]:
    """Call the kernel of the platform that a function is lowered for, known only at that time.

    Without GPUs, no GPU code is traced.
    """
    if not pallas_has_it or jax.default_backend() != "gpu":
        return native(*arrays)
    branches = {"cuda": pallas, "rocm": pallas}
    if _native.library().reason is None:
        branches["cpu"] = native
    return jax.lax.platform_dependent(*arrays, **branches)


def _pallas_call(
    name: str, settings: dict[str, int], results: int, *arrays: jax.Array
) -> list[jax.Array]:
    """Call the Pallas kernel in place of the foreign function `name`."""
    pallas = _pallas()
    cholesky = settings["structure"] == STRUCTURES["cholesky"]
    if name == BACKWARD:
        fixed_mean = bool(settings["fixed_mean"])
        return [pallas.backward(*arrays, cholesky=cholesky, fixed_mean=fixed_mean)]
    variance = bool(settings["variance"])
    keeps = results > 2 + variance
    return pallas.forward(*arrays, cholesky=cholesky, variance=variance, keeps=keeps)
