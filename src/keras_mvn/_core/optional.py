"""Optional dependencies, imported on use; if one is missing, the error names what to install."""

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
    "shap": "explain",
    "fastapi": "serve",
    "pydantic": "serve",
    "uvicorn": "serve",
}
"""Extra of this package that installs a top-level module; others have their own package name."""


def require(module: str, who: str) -> Any:
    """Import and return a module that `who` needs.

    Args:
        module: dotted name of the module.
        who: name of the feature that needs it, for the error message.

    Raises:
        ImportError: the module is not installed; the message says what to install.

    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]  # the module, or one of its own dependencies
        if missing != module.partition(".")[0] and missing not in _EXTRAS:
            raise
        what = f'"keras-mvn[{_EXTRAS[missing]}]"' if missing in _EXTRAS else missing
        raise ImportError(f"{who} needs {missing}: pip install {what}") from error
