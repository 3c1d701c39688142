"""Which Keras backends are installed. Imports none of them, nor Keras."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

__all__ = ["configured_backend", "explain_missing_backend", "installed_backends"]

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
    except (OSError, ValueError):
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
