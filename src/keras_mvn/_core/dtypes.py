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
    """Return the requested policy; float32 or float64 instead of half precision or quantization."""
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    full = policy.compute_dtype in ("float32", "float64") and policy.quantization_mode is None
    return policy if full else at_least_float32(policy.compute_dtype)
