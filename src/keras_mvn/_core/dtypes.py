"""Dtypes of the computations after a head: at least float32, and float64 if requested."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["at_least_float32", "at_least_float32_policy"]


def at_least_float32(dtype: Any) -> str:
    """Return "float64" for float64, and "float32" for everything else.

    >>> at_least_float32("bfloat16"), at_least_float32("float64"), at_least_float32(None)
    ('float32', 'float64', 'float32')
    """
    name = "float32" if dtype is None else keras.backend.standardize_dtype(dtype)
    return "float64" if name == "float64" else "float32"


def at_least_float32_policy(dtype: Any) -> Any:
    """Return the requested dtype policy, or float32 if it would compute in half precision."""
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    return policy if policy.compute_dtype in ("float32", "float64") else "float32"
