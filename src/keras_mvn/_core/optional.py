"""Optional dependencies: imported where they are used, with an error that says what to install."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["require"]

_EXTRAS = {
    "scipy": "analysis",
    "sklearn": "analysis",
    "pandas": "tables",
    "pyarrow": "tables",
    "matplotlib": "plots",
    "jinja2": "cli",
    "markupsafe": "cli",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "tf2onnx": "export",
    "jax2onnx": "export-jax",
}
"""Top-level module → the extra of this package that brings it; others go by their own name."""


def require(module: str, who: str) -> Any:
    """The module of this dotted name, for `who`.

    Raises:
        ImportError: it is not installed; the message says what to install.

    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]  # the module, or one that it needs itself
        if missing != module.partition(".")[0] and missing not in _EXTRAS:
            raise
        what = f'"keras-mvn[{_EXTRAS[missing]}]"' if missing in _EXTRAS else missing
        raise ImportError(f"{who} needs {missing}: pip install {what}") from error
