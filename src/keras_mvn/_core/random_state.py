"""Random seeds for training that disturb the caller's random state as little as possible."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import keras
import numpy as np

from keras_mvn._core.optional import require

__all__ = ["random_state"]


@contextlib.contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Seed all generators that Keras uses; on exit, restore those whose state can be read."""
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  (Keras' own)
    with contextlib.ExitStack() as restore:
        restore.callback(random.setstate, python)
        restore.callback(np.random.set_state, numpy_state)
        if keras.backend.backend() == "torch":
            torch = require("torch", "random_state")
            devices = range(torch.cuda.device_count())
            restore.enter_context(torch.random.fork_rng(devices))
        keras.utils.set_random_seed(seed)
        yield
