"""JAX on the CPU: the native kernels as XLA foreign functions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from keras_mvn.kernels import _native
from keras_mvn.kernels._jax import Call, by_rows, foreign_function, platform
from keras_mvn.kernels.parameters.types import Origin

__all__ = ["made_by", "parameters", "supports"]


def supports(raw: jax.Array) -> str | None:
    """Why there is no fast path for this array; None if there is."""
    if raw.dtype not in (jnp.float32, jnp.float64):
        return f"the arrays are {raw.dtype}."
    where = platform(raw)
    return _native.library().reason if where == "cpu" else f"the arrays are on {where}."


def made_by(raw: jax.Array) -> str:
    """What the fast path is made of."""
    return _native.library().made_by


def parameters(raw: jax.Array, origin: Origin, radius: float) -> jax.Array:
    """As `kernels.parameters.parameters`."""
    constants = (jnp.asarray(x, raw.dtype) for x in origin)
    rows = raw.reshape(-1, raw.shape[-1])
    return _differentiable(radius, rows, *constants).reshape(raw.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(radius: float, raw: jax.Array, *origin: jax.Array) -> jax.Array:
    """y_pred."""
    axes = ("b w", "d", "d", "d", "k")
    return _call("parameters_forward", radius, axes)(raw, *origin)[0]


def _forward(radius: float, raw: jax.Array, *origin: jax.Array) -> Any:
    return _differentiable(radius, raw, *origin), (raw, origin)


def _backward(radius: float, kept: Any, y_pred_bar: jax.Array) -> tuple[jax.Array, ...]:
    raw, origin = kept
    _, stddev, scale, _ = origin
    call = _call("parameters_backward", radius, ("b w", "b w", "d", "d"))
    (raw_bar,) = call(y_pred_bar, raw, stddev, scale)
    return raw_bar, *(jnp.zeros_like(x) for x in origin)  # the origin is no weight


_differentiable.defvjp(_forward, _backward)


@functools.cache
def _call(name: str, radius: float, arguments: tuple[str, ...]) -> Call:
    """The foreign function, for arrays whose axes are named: b rows, w columns, d, k."""
    results = ("b w",)
    return by_rows(
        foreign_function(name, arguments, results, {}, {"radius": radius}), arguments, results
    )
