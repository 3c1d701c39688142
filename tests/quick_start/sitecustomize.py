"""Hides TensorFlow from the new processes of tests that run on another backend.

Keras imports TensorFlow wherever it is installed, which takes most of the time that a new process
needs to start. `conftest.py` puts this folder on their path.
"""

import os
import sys

if os.environ.get("KERAS_BACKEND") in ("jax", "torch"):
    sys.modules["tensorflow"] = None
