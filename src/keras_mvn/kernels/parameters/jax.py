"""Fast path for JAX on the CPU: the native kernels as XLA foreign functions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from keras_mvn.kernels import _native
from keras_mvn.kernels._jax import Call, by_rows, foreign_function, platform
from keras_mvn.kernels.parameters.types import Emitted, Origin, without_penalty

__all__ = ["made_by", "parameters", "supports"]


def supports(raw: jax.Array) -> str | None:
    """Return the reason why there is no fast path for this array; None if there is one."""
    if raw.dtype not in (jnp.float32, jnp.float64):
        return f"the arrays are {raw.dtype}."
    where = platform(raw)
    return _native.library().reason if where == "cpu" else f"the arrays are on {where}."


def made_by(raw: jax.Array) -> str:
    """Return the implementation of the fast path."""
    return _native.library().made_by


def parameters(
    raw: jax.Array,
    origin: Origin,
    radius: float,
    bias: jax.Array | None,
    strengths: jax.Array | None,
) -> Emitted:
    """Compute `kernels.parameters.parameters` on the fast path."""
    origin = Origin(*(jnp.asarray(x, raw.dtype) for x in origin))
    rows = raw.reshape(-1, raw.shape[-1])
    bias = jnp.zeros(raw.shape[-1:], raw.dtype) if bias is None else bias.astype(raw.dtype)
    strong = jnp.zeros((0,), raw.dtype) if strengths is None else strengths.astype(raw.dtype)
    y_pred, penalty = _differentiable(radius, rows, bias, origin, strong)
    return Emitted(
        y_pred.reshape(raw.shape), None if strengths is None else penalty.reshape(raw.shape[:-1])
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(
    radius: float, raw: jax.Array, bias: jax.Array, origin: Origin, strengths: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return (y_pred, penalty)."""
    call = _call(
        "parameters_forward", radius, ("b w", "w", "d", "d", "d", "k", "d", "m"), ("b w", "b")
    )
    y_pred, penalty = call(raw, bias, *origin, strengths)
    return y_pred, penalty


def _forward(radius: float, *inputs: Any) -> Any:
    return _differentiable(radius, *inputs), inputs


def _backward(radius: float, kept: Any, bars: tuple[jax.Array, jax.Array]) -> Any:
    raw, bias, origin, strengths = kept
    call = _call("parameters_backward", radius, ("b w", "w", "d", "d", "m", "b w", "b"), ("b w",))
    (raw_bar,) = call(raw, bias, origin.stddev, origin.scale, strengths, *bars)
    summed = raw_bar.sum(axis=0)
    if len(strengths):
        summed = jnp.concatenate(without_penalty(summed, raw, strengths, bars[1]))
    # Origin and strengths are not weights.
    return raw_bar, summed, *jax.tree.map(jnp.zeros_like, (origin, strengths))


_differentiable.defvjp(_forward, _backward)


@functools.cache
def _call(name: str, radius: float, arguments: tuple[str, ...], results: tuple[str, ...]) -> Call:
    """Return the foreign function; the axes are b rows, w columns, d, k and m."""
    return by_rows(
        foreign_function(name, arguments, results, {}, {"radius": radius}), arguments, results
    )
