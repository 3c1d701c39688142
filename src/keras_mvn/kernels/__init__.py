"""Fused arithmetic: where the backends' own code is.

An operation is a folder: `reference.py` in `keras.ops`, which is the truth and the fallback, and
beside it one file for each backend that has a faster way. Losses take the fast path where it is
supported; `fused=True` asks for it or an error, `fused=False` for the reference.
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
