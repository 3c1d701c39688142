"""Which Keras backends are installed, and the start of the `keras-mvn` command.

A package of its own, since importing anything below `keras_mvn` imports Keras, and with it a
backend: the command has to choose one before that. The library itself never chooses.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["configured_backend", "explain_missing_backend", "installed_backends", "main"]

BACKENDS = ("tensorflow", "jax", "torch")


def installed_backends() -> list[str]:
    """The backends that could be imported here."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def configured_backend() -> str:
    """The backend Keras will import: KERAS_BACKEND, else keras.json, else TensorFlow."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"]
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    try:
        configuration = json.loads((Path(home) / "keras.json").read_text())
        return str(configuration.get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):  # no file, not JSON, not an object
        return "tensorflow"


def explain_missing_backend() -> str:
    """What to install or set when `import keras` fails."""
    wanted, installed = configured_backend(), installed_backends()
    if installed:
        return (
            f"Keras is set to the backend {wanted!r}, which could not be imported; installed: "
            f"{', '.join(installed)}. Choose one before Keras is imported: "
            f"export KERAS_BACKEND={installed[0]}"
        )
    return (
        "Keras needs a backend and none is installed. Install one: "
        "pip install jax (or tensorflow, or torch), and set KERAS_BACKEND to its name."
    )


def main() -> None:
    """Run `keras-mvn`, on the backend that Keras is set to, or else on one that is installed."""
    try:
        _main()
    except KeyboardInterrupt:  # while a backend is imported: seconds, in which nothing is begun
        sys.stderr.write("keras-mvn: interrupted\n")
        sys.exit(130)


def _main() -> None:
    installed = installed_backends()
    if not installed:
        sys.exit(f"keras-mvn: {explain_missing_backend()}")
    if "KERAS_BACKEND" not in os.environ and configured_backend() not in installed:
        os.environ["KERAS_BACKEND"] = installed[0]
    if configured_backend() not in installed:
        sys.exit(f"keras-mvn: {explain_missing_backend()}")
    for name in ("click", "rich"):
        if importlib.util.find_spec(name) is None:
            sys.exit(f"keras-mvn: {name} is missing; pip install 'keras-mvn[cli]'")
    # TensorFlow's greetings are no answer. Keras imports it on any backend.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if configured_backend() != "tensorflow":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it says so if they are on
    with _without_greetings():
        from keras_mvn_cli.main import command  # and with it the backend

    command()


_GREETING = re.compile(rb"WARNING: All log messages before absl|I\d{4} ")
"""TensorFlow's lines, which it writes whatever TF_CPP_MIN_LOG_LEVEL says (2.21)."""


@contextlib.contextmanager
def _without_greetings() -> Iterator[None]:
    """Hold back what is written to stderr, by C++ too, and then pass it on without greetings."""
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
