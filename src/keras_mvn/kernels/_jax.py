"""Calls of the native library from JAX, as foreign functions of rows.

There are three layers, one for each thing that JAX does with a function: `jax.ffi` calls the
library on XLA's threads; `custom_partitioning` declares that rows are independent, so that sharded
batches stay where they are; `custom_vmap` treats an additional batch axis as more rows.

Arguments and results are described by the names of their axes, such as `"b d"`: b is the axis of
rows, which all results have; an argument without it is the same for all rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from keras_mvn.kernels import _native

__all__ = ["by_rows", "foreign_function", "platform"]

Call = Callable[..., list[jax.Array]]


def platform(array: jax.Array) -> str:
    """Return the platform of an array, or of the default device if the array is traced."""
    if not isinstance(array, jax.core.Tracer):
        return str(next(iter(array.devices())).platform)
    default = jax.config.jax_default_device
    if default is None:
        return str(jax.default_backend())
    return default if isinstance(default, str) else str(default.platform)


def foreign_function(
    name: str,
    arguments: tuple[str, ...],
    results: tuple[str, ...],
    sizes: Mapping[str, int],
    settings: Mapping[str, int | float],
) -> Call:
    """Return a function that calls `kmvn_xla_<name>` of the library.

    Args:
        name: name of the function.
        arguments: axes of each argument.
        results: axes of each result.
        sizes: sizes of axes that no argument has.
        settings: attributes of the function, int32 or float64.

    """
    attributes = {
        key: np.int32(value) if isinstance(value, int) else np.float64(value)
        for key, value in settings.items()
    }

    def call(*arrays: jax.Array) -> list[jax.Array]:
        known = dict(sizes)
        for array, axes in zip(arrays, arguments, strict=True):
            known.update(zip(axes.split(), array.shape, strict=True))
        shapes = [
            jax.ShapeDtypeStruct([known[axis] for axis in axes.split()], arrays[0].dtype)
            for axes in results
        ]
        return list(jax.ffi.ffi_call(_registered(name), shapes)(*arrays, **attributes))

    return call


@functools.cache
def _registered(name: str) -> str:
    target = f"keras_mvn_{name}"
    symbol = getattr(_native.library().loaded, f"kmvn_xla_{name}")
    jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(symbol), platform="cpu")
    return target


def by_rows(call: Call, arguments: tuple[str, ...], results: tuple[str, ...]) -> Call:
    """Wrap `call` for sharded rows and for vmap."""
    return _with_more_rows(_partitioned(call, arguments, results), arguments)


def _partitioned(call: Call, arguments: tuple[str, ...], results: tuple[str, ...]) -> Call:
    """Wrap `call` so that each device handles some of the rows, with all of their columns."""
    partitioned = custom_partitioning(call)

    def shardings(mesh: Any, described: tuple[str, ...], rows: Any) -> tuple[NamedSharding, ...]:
        return tuple(
            NamedSharding(mesh, PartitionSpec(*(rows if a == "b" else None for a in axes.split())))
            for axes in described
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
    found: Call = partitioned
    return found


def _with_more_rows(call: Call, arguments: tuple[str, ...]) -> Call:
    """Wrap `call` so that under vmap one call handles the rows of all batches.

    If an argument that is the same for all rows differs between batches, they are handled one after
    another.
    """
    batched = custom_vmap(call)
    of_rows = ["b" in axes.split() for axes in arguments]

    @batched.def_vmap
    def rule(size: int, has_axis: Any, *arrays: jax.Array) -> Any:
        if any(there and not rows for there, rows in zip(has_axis, of_rows, strict=True)):
            found = jax.lax.map(
                lambda chosen: batched(*_merged(arrays, has_axis, chosen)),
                [array for array, there in zip(arrays, has_axis, strict=True) if there],
            )
            return found, [True] * len(found)
        flat = []
        for array, there, rows in zip(arrays, has_axis, of_rows, strict=True):
            whole = array if there or not rows else jnp.broadcast_to(array, (size, *array.shape))
            flat.append(whole.reshape(-1, *whole.shape[2:]) if rows else whole)
        found = batched(*flat)
        return [x.reshape(size, -1, *x.shape[1:]) for x in found], [True] * len(found)

    found: Call = batched
    return found


def _merged(arrays: Any, has_axis: Any, chosen: Any) -> list[jax.Array]:
    """Return the arrays, with chosen elements in place of those that have the axis."""
    rest = iter(chosen)
    return [next(rest) if there else array for array, there in zip(arrays, has_axis, strict=True)]
