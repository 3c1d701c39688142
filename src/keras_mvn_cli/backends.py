"""The choice of a Keras backend for the command, and the import of the library.

Keras imports a backend when it is imported, and importing anything below `keras_mvn` imports Keras,
so the command chooses a backend before that. The library itself never chooses one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["choose_backend", "configured_backend", "installed_backends", "load_library"]

BACKENDS = ("tensorflow", "jax", "torch")


def installed_backends() -> list[str]:
    """Return the names of the backends that are installed."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def configured_backend() -> str:
    """Return the backend Keras will import: KERAS_BACKEND, else keras.json, else TensorFlow."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    try:
        configuration = json.loads((Path(home) / "keras.json").read_text())
        return str(configuration.get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):  # no file, not JSON, not an object
        return "tensorflow"


def choose_backend() -> None:
    """Set KERAS_BACKEND to an installed backend if it is unset and Keras' own is missing."""
    if "KERAS_BACKEND" in os.environ:
        return
    installed = installed_backends()
    if installed and configured_backend() not in installed:
        os.environ["KERAS_BACKEND"] = installed[0]


def load_library() -> None:
    """Import `keras_mvn`, and with it Keras and a backend, without TensorFlow's startup messages.

    Raises:
        ImportError: no backend can be imported; the message says what to install or set.

    """
    choose_backend()
    # Keras imports TensorFlow with any backend, if it is installed.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if configured_backend() != "tensorflow":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # if on, TensorFlow logs it
    with _without_greetings():
        importlib.import_module("keras_mvn")


_GREETING = re.compile(rb"WARNING: All log messages before absl|I\d{4} ")
"""Lines that TensorFlow 2.21 writes regardless of TF_CPP_MIN_LOG_LEVEL."""


@contextlib.contextmanager
def _without_greetings() -> Iterator[None]:
    """Capture stderr, C++ output included, and pass it on without the startup messages."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _GREETING.match(line):
                    os.write(2, line)
