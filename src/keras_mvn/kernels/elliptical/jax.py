"""JAX on the CPU: the native kernels as XLA foreign functions.

Three layers, each for one thing that JAX does with a function: `jax.ffi` calls the library, on
XLA's threads; `custom_partitioning` tells that rows are independent, so that sharded batches stay
where they are; `custom_vmap` takes a further batch axis as more rows. `custom_vjp` is over all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from keras_mvn._rows import Targets
from keras_mvn.kernels import _native
from keras_mvn.kernels.elliptical.types import STRUCTURES, Elliptical, Request

__all__ = ["elliptical", "supports"]

FORWARD, BACKWARD = "keras_mvn_elliptical", "keras_mvn_elliptical_backward"


def supports(packed: jax.Array) -> str | None:
    """Why there is no fast path for this array; None if there is."""
    if packed.dtype not in (jnp.float32, jnp.float64):
        return f"the arrays are {packed.dtype}."
    platform = _platform(packed)
    if platform != "cpu":
        return f"the arrays are on {platform}."
    return _native.library().reason


def _platform(packed: jax.Array) -> str:
    """Of the array, or of what is traced: the default device's."""
    if not isinstance(packed, jax.core.Tracer):
        return next(iter(packed.devices())).platform
    default = jax.config.jax_default_device
    if default is None:
        return jax.default_backend()
    return default if isinstance(default, str) else default.platform


def elliptical(request: Request, packed: jax.Array, targets: Targets) -> Elliptical:
    """As `kernels.elliptical.elliptical`."""
    d = targets.values.shape[-1]
    batch = packed.shape[:-1]
    observed = () if targets.observed is None else (targets.observed.reshape(-1, d),)
    rows = packed.reshape(-1, packed.shape[-1])
    mean, mahalanobis, log_scale, *variance = _differentiable(
        request, rows, targets.values.reshape(-1, d), *observed
    )
    return Elliptical(
        mean.reshape(*batch, d),
        mahalanobis.reshape(batch),
        log_scale.reshape(batch),
        variance[0].reshape(*batch, d) if variance else None,
    )


# --- the gradient --------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(
    request: Request, y_pred: jax.Array, y: jax.Array, *observed: jax.Array
) -> tuple[jax.Array, ...]:
    """(mean, mahalanobis, log_scale[, variance])."""
    return y_pred[:, : y.shape[-1]], *_call_forward(request, False, y_pred, y, *observed)


def _forward(
    request: Request, y_pred: jax.Array, y: jax.Array, *observed: jax.Array
) -> tuple[tuple[jax.Array, ...], Any]:
    *values, z, v = _call_forward(request, True, y_pred, y, *observed)
    return (y_pred[:, : y.shape[-1]], *values), (y_pred, y, z, v, observed)


def _backward(request: Request, kept: Any, bars: tuple[jax.Array, ...]) -> tuple[Any, ...]:
    y_pred, y, z, v, observed = kept
    mean_bar, mahalanobis_bar, log_scale_bar = bars[:3]
    y_pred_bar = _call_backward(
        request, y_pred, y, z, v, mahalanobis_bar, log_scale_bar, mean_bar, *observed
    )
    d = y.shape[-1]
    y_bar = 2.0 * mahalanobis_bar[:, None] * v / y_pred[:, d : 2 * d]
    return y_pred_bar, y_bar, *(jnp.zeros_like(x) for x in observed)


_differentiable.defvjp(_forward, _backward)


# --- the calls -----------------------------------------------------------------------------------


def _call_forward(
    request: Request, keeps: bool, y_pred: jax.Array, y: jax.Array, *observed: jax.Array
) -> tuple[jax.Array, ...]:
    """(mahalanobis, log_scale[, variance][, z, v]); z and v are kept for the backward pass."""
    results = ["b", "b", *["b d"] * request.variance_in_kernel, *["b d", "b d"] * keeps]
    settings = (
        ("structure", STRUCTURES[request.structure or ""]),
        ("variance", int(request.variance_in_kernel)),
    )
    arguments = ("b w", "b d", *["b d"] * len(observed))
    return tuple(_by_rows(FORWARD, settings, arguments, tuple(results))(y_pred, y, *observed))


def _call_backward(request: Request, *arrays: jax.Array) -> jax.Array:
    """y_pred_bar."""
    settings = (
        ("structure", STRUCTURES[request.structure or ""]),
        ("fixed_mean", int(request.fixed_mean)),
    )
    arguments = tuple("b" if array.ndim == 1 else "b d" for array in arrays[1:])
    (y_pred_bar,) = _by_rows(BACKWARD, settings, ("b w", *arguments), ("b w",))(*arrays)
    return y_pred_bar


@functools.cache
def _by_rows(
    target: str,
    settings: tuple[tuple[str, int], ...],
    arguments: tuple[str, ...],
    results: tuple[str, ...],
) -> Callable[..., Any]:
    """The foreign function, for arrays whose axes are named: b rows, w columns of y_pred, d."""
    _register()

    def call(*arrays: jax.Array) -> list[jax.Array]:
        sizes = {
            name: size
            for array, axes in zip(arrays, arguments, strict=True)
            for name, size in zip(axes.split(), array.shape, strict=True)
        }
        shapes = [
            jax.ShapeDtypeStruct([sizes[name] for name in axes.split()], arrays[0].dtype)
            for axes in results
        ]
        return list(
            jax.ffi.ffi_call(target, shapes)(*arrays, **{k: np.int32(v) for k, v in settings})
        )

    return _with_more_rows(_partitioned(call, arguments, results))


@functools.cache
def _register() -> None:
    handle = _native.library().handle
    assert handle is not None  # `supports` was asked
    for name, symbol in (
        (FORWARD, handle.kmvn_xla_elliptical_forward),
        (BACKWARD, handle.kmvn_xla_elliptical_backward),
    ):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(symbol), platform="cpu")


def _partitioned(
    call: Callable[..., Any], arguments: tuple[str, ...], results: tuple[str, ...]
) -> Callable[..., Any]:
    """`call`, each device having some of the rows and all of their columns."""
    partitioned = custom_partitioning(call)

    def shardings(mesh: Any, axes: tuple[str, ...], rows: Any) -> tuple[NamedSharding, ...]:
        return tuple(
            NamedSharding(mesh, PartitionSpec(rows, *[None] * (len(names.split()) - 1)))
            for names in axes
        )

    def rows_of(shapes: Any) -> Any:
        spec = shapes[0].sharding.spec
        return spec[0] if len(spec) else None

    def infer(mesh: Any, shapes: Any, _: Any) -> list[NamedSharding]:
        return list(shardings(mesh, results, rows_of(shapes)))

    def partition(mesh: Any, shapes: Any, _: Any) -> Any:
        rows = rows_of(shapes)
        return mesh, call, list(shardings(mesh, results, rows)), shardings(mesh, arguments, rows)

    partitioned.def_partition(
        partition=partition,
        infer_sharding_from_operands=infer,
        sharding_rule=f"{', '.join(arguments)} -> {', '.join(results)}",
    )
    return partitioned


def _with_more_rows(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, which under vmap has the rows of all batches."""
    batched = custom_vmap(call)

    @batched.def_vmap
    def rule(size: int, has_axis: Any, *arrays: jax.Array) -> Any:
        rows = [
            (array if there else jnp.broadcast_to(array, (size, *array.shape)))
            for array, there in zip(arrays, has_axis, strict=True)
        ]
        found = batched(*(array.reshape(-1, *array.shape[2:]) for array in rows))
        return [x.reshape(size, -1, *x.shape[1:]) for x in found], [True] * len(found)

    return batched
