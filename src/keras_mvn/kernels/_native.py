"""Loading of the native library, which is built from `native/`."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Library", "library", "tensorflow_operations"]

FOLDER = Path(__file__).parent / "_lib"

ABI = 6
"""`KMVN_ABI` of native/core/interface.h, which changes with every change of the interface."""

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_PREFIX = "" if sys.platform == "win32" else "lib"


class Library(NamedTuple):
    """A shared library, or the reason why it is not available."""

    handle: Any | None
    reason: str | None

    @property
    def loaded(self) -> Any:
        """The library; check first that `reason` is None.

        Raises:
            RuntimeError: the library is not available.

        """
        if self.handle is None:
            raise RuntimeError(self.reason)
        return self.handle

    @property
    def made_by(self) -> str:
        """Description with the instruction set in use: avx512, avx2 or baseline."""
        instructions: bytes = self.loaded.kmvn_instructions()
        return f"native, {instructions.decode()}"


@functools.cache
def library() -> Library:
    """Load the kernels with their C interface and the XLA interface.

    Raises:
        OSError: the library exists but cannot be loaded.
        ImportError: the library belongs to a different version of the package.

    """
    path = FOLDER / f"{_PREFIX}keras_mvn_native{_SUFFIX}"
    if not path.is_file():
        return Library(None, _NOT_BUILT)
    handle = _of_this_version(path)
    handle.kmvn_instructions.restype = ctypes.c_char_p
    return Library(handle, None)


def tensorflow_operations(load: Callable[[str], Any]) -> Any:
    """Load the operations for TensorFlow with `load`, which is `tf.load_op_library`.

    Raises:
        ImportError: they belong to a different version of the package.

    """
    path = FOLDER / f"{_PREFIX}keras_mvn_tensorflow{_SUFFIX}"
    operations = load(str(path))
    _of_this_version(path)  # not before: the first load registers them
    return operations


def _of_this_version(path: Path) -> Any:
    handle = ctypes.CDLL(str(path))
    found = handle.kmvn_abi()
    if found != ABI:
        raise ImportError(
            f"{path} has interface {found}, but keras-mvn expects {ABI}. Reinstall keras-mvn."
        )
    return handle


_NOT_BUILT = (
    "the native library was not built, because there was no C++ compiler when keras-mvn was "
    "installed. Install one (g++ 12 or clang 15), then run "
    "`pip install --force-reinstall --no-cache-dir keras-mvn`."
)
