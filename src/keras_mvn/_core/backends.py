"""Error message for a missing Keras backend."""

from __future__ import annotations

import importlib.util

__all__ = ["BACKENDS", "explain_missing_backend"]

BACKENDS = ("tensorflow", "jax", "torch")


def explain_missing_backend(wanted: str) -> str:
    """Explain what to install or set when `import keras` cannot import its backend.

    Args:
        wanted: str, the backend that Keras tried to import: KERAS_BACKEND, or else the one in
            keras.json, or else TensorFlow.

    """
    installed = [name for name in BACKENDS if importlib.util.find_spec(name) is not None]
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
