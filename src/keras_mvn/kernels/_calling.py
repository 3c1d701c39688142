"""Calling the C interface of native/core with addresses of memory."""

from __future__ import annotations

import ctypes

from keras_mvn.kernels import _native

__all__ = ["addresses", "call", "sizes"]

Field = tuple[str, type]


class _Threads(ctypes.Structure):
    _fields_ = [
        ("threads", ctypes.c_int),
        ("submit", ctypes.c_void_p),
        ("scheduler", ctypes.c_void_p),
    ]


def sizes(*names: str) -> list[Field]:
    """Fields of type int64_t."""
    return [(name, ctypes.c_int64) for name in names]


def addresses(*names: str) -> list[Field]:
    """Fields that are pointers; 0 is NULL."""
    return [(name, ctypes.c_void_p) for name in names]


def call(function: str, bytes_of_a_number: int, threads: int, arguments: ctypes.Structure) -> None:
    """Call `kmvn_<function>` for float32 or float64, in so many threads."""
    handle = _native.library().handle
    assert handle is not None  # `supports` was asked
    symbol = getattr(handle, f"kmvn_{function}_f{8 * bytes_of_a_number}")
    failure = symbol(ctypes.byref(arguments), _Threads(threads))
    assert failure == 0, f"{function}: arguments that the library does not know"
