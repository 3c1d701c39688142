"""Fused kernels: backend-specific implementations of the most expensive operations.

Each operation is a folder: `reference.py`, in `keras.ops`, defines the result, and is the fallback;
other files are faster implementations, one for each backend that has one. Losses take the fast path
if it is supported; `fused=True` raises an error otherwise, `fused=False` takes the reference.
"""

from keras_mvn.kernels._dispatch import Ran as Ran
from keras_mvn.kernels._dispatch import recording as recording
from keras_mvn.kernels._status import Status as Status
from keras_mvn.kernels._status import status as status
from keras_mvn.kernels.elliptical import Elliptical as Elliptical
from keras_mvn.kernels.elliptical import elliptical as elliptical
from keras_mvn.kernels.parameters import Emitted as Emitted
from keras_mvn.kernels.parameters import Origin as Origin
from keras_mvn.kernels.parameters import parameters as parameters

__all__ = [
    "Elliptical",
    "Emitted",
    "Origin",
    "Ran",
    "Status",
    "elliptical",
    "parameters",
    "recording",
    "status",
]
