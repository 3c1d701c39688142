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


def parameters(raw_mean: jax.Array, raw: jax.Array, origin: Origin, radius: float) -> jax.Array:
    """As `kernels.parameters.parameters`."""
    batch = raw.shape[:-1]
    rows = (x.reshape(-1, x.shape[-1]) for x in (raw_mean, raw))
    constants = (jnp.asarray(x, raw.dtype) for x in origin)
    return _differentiable(radius, *rows, *constants).reshape(*batch, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(radius: float, raw_mean: jax.Array, raw: jax.Array, *origin: Any) -> jax.Array:
    """y_pred."""
    width = raw_mean.shape[-1] + raw.shape[-1]
    return _calls(radius, width)[0](raw_mean, raw, *origin)[0]


def _forward(radius: float, raw_mean: jax.Array, raw: jax.Array, *origin: Any) -> Any:
    return _differentiable(radius, raw_mean, raw, *origin), (raw, origin)


def _backward(radius: float, kept: Any, y_pred_bar: jax.Array) -> tuple[jax.Array, ...]:
    raw, origin = kept
    _, stddev, scale, _ = origin
    raw_mean_bar, raw_bar = _calls(radius, y_pred_bar.shape[-1])[1](y_pred_bar, raw, stddev, scale)
    return raw_mean_bar, raw_bar, *(jnp.zeros_like(x) for x in origin)  # the origin is no weight


_differentiable.defvjp(_forward, _backward)


@functools.cache
def _calls(radius: float, width: int) -> tuple[Call, Call]:
    """Forward and backward."""

    def call(name: str, arguments: tuple[str, ...], results: tuple[str, ...]) -> Call:
        function = foreign_function(name, arguments, results, {"w": width}, {"radius": radius})
        return by_rows(function, arguments, results)

    return (
        call("parameters_forward", ("b d", "b r", "d", "d", "d", "k"), ("b w",)),
        call("parameters_backward", ("b w", "b r", "d", "d"), ("b d", "b r")),
    )
