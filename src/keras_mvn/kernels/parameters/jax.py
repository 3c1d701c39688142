"""JAX on the CPU: the native kernels as XLA foreign functions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from keras_mvn.kernels import _native
from keras_mvn.kernels._jax import Call, by_rows, foreign_function, platform
from keras_mvn.kernels.parameters.types import Emitted, Origin, Shrinkage, center_gradient

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


def parameters(
    raw: jax.Array, origin: Origin, radius: float, shrinkage: Shrinkage | None
) -> Emitted:
    """As `kernels.parameters.parameters`."""
    nothing = jnp.zeros((0,), raw.dtype)
    constants = (jnp.asarray(x, raw.dtype) for x in origin)
    shrinks = (jnp.asarray(x, raw.dtype) for x in shrinkage or (nothing, nothing))
    rows = raw.reshape(-1, raw.shape[-1])
    y_pred, penalty = _differentiable(radius, rows, Origin(*constants), Shrinkage(*shrinks))
    return Emitted(
        y_pred.reshape(raw.shape), penalty.reshape(raw.shape[:-1]) if shrinkage else None
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(
    radius: float, raw: jax.Array, origin: Origin, shrinkage: Shrinkage
) -> tuple[jax.Array, jax.Array]:
    """(y_pred, penalty)."""
    call = _call("parameters_forward", radius, ("b w", "d", "d", "d", "k", "m", "m"), ("b w", "b"))
    y_pred, penalty = call(raw, *origin, *shrinkage)
    return y_pred, penalty


def _forward(radius: float, raw: jax.Array, origin: Origin, shrinkage: Shrinkage) -> Any:
    return _differentiable(radius, raw, origin, shrinkage), (raw, origin, shrinkage)


def _backward(radius: float, kept: Any, bars: tuple[jax.Array, jax.Array]) -> Any:
    raw, origin, shrinkage = kept
    y_pred_bar, penalty_bar = bars
    call = _call("parameters_backward", radius, ("b w", "b w", "d", "d", "b", "m", "m"), ("b w",))
    (raw_bar,) = call(y_pred_bar, raw, origin.stddev, origin.scale, penalty_bar, *shrinkage)
    # Origin and strengths are no weights; the center is a bias.
    center_bar = center_gradient(raw, penalty_bar, penalty_bar.sum(), shrinkage)
    return (
        raw_bar,
        Origin(*(jnp.zeros_like(x) for x in origin)),
        Shrinkage(center_bar, jnp.zeros_like(shrinkage.strengths)),
    )


_differentiable.defvjp(_forward, _backward)


@functools.cache
def _call(name: str, radius: float, arguments: tuple[str, ...], results: tuple[str, ...]) -> Call:
    """The foreign function, for arrays whose axes are named: b rows, w columns, d, k, m."""
    return by_rows(
        foreign_function(name, arguments, results, {}, {"radius": radius}), arguments, results
    )
