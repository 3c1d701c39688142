"""The library of `native/`: where it is, or why there is none."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Library", "library", "tensorflow_operations"]

FOLDER = Path(__file__).parent / "_lib"

ABI = 5
"""`KMVN_ABI` of native/core/interface.h, which changes with every meaning in it."""

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_PREFIX = "" if sys.platform == "win32" else "lib"


class Library(NamedTuple):
    """A shared library, or the reason why there is none."""

    handle: Any | None
    reason: str | None

    @property
    def loaded(self) -> Any:
        """The library, for those who asked whether there is a reason against it.

        Raises:
            RuntimeError: there is.

        """
        if self.handle is None:
            raise RuntimeError(self.reason)
        return self.handle

    @property
    def made_by(self) -> str:
        """With the instructions of the processor that were chosen: avx512, avx2, baseline."""
        instructions: bytes = self.loaded.kmvn_instructions()
        return f"native, {instructions.decode()}"


@functools.cache
def library() -> Library:
    """The kernels with their C interface, and XLA's.

    Raises:
        OSError: the library is there and cannot be loaded.
        ImportError: it belongs to another version of the package.

    """
    path = FOLDER / f"{_PREFIX}keras_mvn_native{_SUFFIX}"
    if not path.is_file():
        return Library(None, _NOT_BUILT)
    handle = _of_this_version(path)
    handle.kmvn_instructions.restype = ctypes.c_char_p
    return Library(handle, None)


def tensorflow_operations(load: Callable[[str], Any]) -> Any:
    """What `tf.load_op_library` makes of the operations for TensorFlow.

    Raises:
        ImportError: they belong to another version of the package.

    """
    path = FOLDER / f"{_PREFIX}keras_mvn_tensorflow{_SUFFIX}"
    operations = load(str(path))
    _of_this_version(path)  # not before: they are registered when they are loaded first
    return operations


def _of_this_version(path: Path) -> Any:
    handle = ctypes.CDLL(str(path))
    found = handle.kmvn_abi()
    if found != ABI:
        raise ImportError(
            f"{path} has interface {found}; this keras_mvn expects {ABI}. Install the package anew."
        )
    return handle


_NOT_BUILT = (
    "the native library was not built: there was no C++ compiler when keras-mvn was installed. "
    "With one (g++ 12 or clang 15), `pip install --force-reinstall --no-cache-dir keras-mvn`."
)
