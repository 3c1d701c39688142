"""Calling the C interface of native/core with addresses of memory."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

from keras_mvn.kernels import _native

__all__ = ["addresses", "call", "sizes"]

Field = tuple[str, type]

_NO_MEMORY = 2
"""`KMVN_NO_MEMORY` of native/core/interface.h."""


class _Threads(ctypes.Structure):
    _fields_ = [
        ("threads", ctypes.c_int),
        ("submit", ctypes.c_void_p),
        ("scheduler", ctypes.c_void_p),
        ("team", ctypes.c_void_p),
    ]


@functools.cache
def _team(process: int) -> int | None:
    """`GOMP_parallel`, if the process has GNU's OpenMP for all to see, as PyTorch brings it.

    Not in a forked child, where OpenMP's threads are gone and it does not know.
    """
    if process != _PROCESS or sys.platform == "win32":
        return None
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except AttributeError:
        return None


_PROCESS = os.getpid()


def sizes(*names: str) -> list[Field]:
    """Fields of type int64_t."""
    return [(name, ctypes.c_int64) for name in names]


def addresses(*names: str) -> list[Field]:
    """Fields that are pointers; 0 is NULL."""
    return [(name, ctypes.c_void_p) for name in names]


def call(function: str, bytes_of_a_number: int, threads: int, arguments: ctypes.Structure) -> None:
    """Call `kmvn_<function>` for float32 or float64, in so many threads.

    Raises:
        MemoryError: there was not enough for what the threads need.
        RuntimeError: the library does not know these arguments.

    """
    symbol = getattr(_native.library().loaded, f"kmvn_{function}_f{8 * bytes_of_a_number}")
    team = _team(os.getpid()) if threads > 1 else None
    failure = symbol(ctypes.byref(arguments), _Threads(threads, None, None, team))
    if failure == _NO_MEMORY:
        raise MemoryError(f"keras_mvn's {function}")
    if failure:  # what was to be written is not
        raise RuntimeError(f"keras_mvn's {function}: a structure or sizes that it does not know.")
