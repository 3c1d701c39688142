"""Hides TensorFlow from the new processes of tests that run on another backend.

Keras imports TensorFlow wherever it is installed, which takes most of the time that a new process
needs to start. `conftest.py` puts this folder on their path.
"""

import os
from importlib.machinery import PathFinder

_find_spec = PathFinder.find_spec


@classmethod
def _without_tensorflow(cls, name, path=None, target=None):
    return None if name == "tensorflow" else _find_spec(name, path, target)


if os.environ.get("KERAS_BACKEND") in ("jax", "torch"):
    PathFinder.find_spec = _without_tensorflow
