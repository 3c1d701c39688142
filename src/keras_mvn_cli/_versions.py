"""Versions of the packages that produced a result."""

from __future__ import annotations

import importlib.metadata
import platform

import keras

__all__ = ["version", "versions"]


def version(name: str) -> str:
    """Return the version of the installed distribution that provides a module."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # e.g. tensorflow-cpu provides tensorflow
        distributions = importlib.metadata.packages_distributions().get(name, [name])
        return importlib.metadata.version(distributions[0])


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that may affect the numbers."""
    backend = keras.backend.backend()
    found = {name: version(name) for name in ("keras", backend, "numpy", "pyarrow", "pandas")}
    return {"keras-mvn": version("keras_mvn"), "python": platform.python_version(), **found}
