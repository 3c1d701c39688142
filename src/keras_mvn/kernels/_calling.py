"""Calls of the C interface of native/core with memory addresses."""

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
    """Return `GOMP_parallel` if GNU OpenMP is globally visible in the process, as with PyTorch.

    Not in a forked child, where OpenMP's threads no longer exist, but OpenMP does not notice.
    """
    if process != _PROCESS or sys.platform == "win32":
        return None
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except AttributeError:
        return None


_PROCESS = os.getpid()


def sizes(*names: str) -> list[Field]:
    """Return fields of type int64_t."""
    return [(name, ctypes.c_int64) for name in names]


def addresses(*names: str) -> list[Field]:
    """Return pointer fields; 0 is NULL."""
    return [(name, ctypes.c_void_p) for name in names]


def call(function: str, bytes_of_a_number: int, threads: int, arguments: ctypes.Structure) -> None:
    """Call `kmvn_<function>` for float32 or float64.

    Args:
        function: name of the function, without prefix and suffix.
        bytes_of_a_number: 4 for float32, 8 for float64.
        threads: int, number of threads.
        arguments: structure of arguments.

    Raises:
        MemoryError: there was not enough memory for the threads' workspaces.
        RuntimeError: the library does not support these arguments.

    """
    symbol = getattr(_native.library().loaded, f"kmvn_{function}_f{8 * bytes_of_a_number}")
    team = _team(os.getpid()) if threads > 1 else None
    failure = symbol(ctypes.byref(arguments), _Threads(threads, None, None, team))
    if failure == _NO_MEMORY:
        raise MemoryError(f"keras_mvn's {function}: out of memory.")
    if failure:  # the outputs are not written
        raise RuntimeError(f"keras_mvn's {function}: unsupported structure or sizes.")
