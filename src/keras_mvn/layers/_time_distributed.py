"""`keras.layers.TimeDistributed`, which calls the layer that it wraps once for each step."""

from __future__ import annotations

from typing import Any

import keras

from keras_mvn._core.keras_internals import calls_in_progress
from keras_mvn._core.tensorflow_loops import inside_vectorized_map

__all__ = ["outermost_time_distributed"]


def outermost_time_distributed() -> Any | None:
    """Return the call of a TimeDistributed that the current call is part of; None if there is none.

    The object is a new one for each call, and lives no longer than that.

    Raises:
        ValueError: it doesn't know the number of steps, and would map over the wrong number: as
            many as there are rows in the batch (keras 3.15, on TensorFlow).

    """
    calls = (
        call
        for call in calls_in_progress()
        if isinstance(call.caller, keras.layers.TimeDistributed)
    )
    call = next(calls, None)
    if call is not None and inside_vectorized_map():
        raise ValueError(
            f"MultivariateNormalHead in TimeDistributed {call.caller.name!r}: the number of steps "
            "is unknown, and Keras would use the number of rows instead. Apply the head itself to "
            "(batch, time, features), without TimeDistributed."
        )
    return call
