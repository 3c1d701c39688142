"""Which versions made something."""

from __future__ import annotations

import importlib.metadata
import platform

import keras

__all__ = ["version", "versions"]


def version(name: str) -> str:
    """Of the distribution that has this module."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu has the module tensorflow
        distributions = importlib.metadata.packages_distributions().get(name, [name])
        return importlib.metadata.version(distributions[0])


def versions() -> dict[str, str]:
    """Of Python and the packages whose versions may change numbers."""
    backend = keras.backend.backend()
    found = {name: version(name) for name in ("keras", backend, "numpy", "pyarrow", "pandas")}
    return {"keras-mvn": version("keras_mvn"), "python": platform.python_version(), **found}
