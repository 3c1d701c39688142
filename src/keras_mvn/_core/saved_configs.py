"""Conversion of configurations saved by earlier versions."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["current_config"]

_RENAMED: dict[str, dict[str, str]] = {
    "keras_mvn.regularizers>LogVolume": {"units": "target_scale"},
}
"""Current names of keys of 0.1.0, by registered name; registered names themselves never change."""


def current_config(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the current argument names of the constructor of a class.

    Args:
        cls: class that is registered with Keras.
        config: configuration from a file; not modified.

    >>> from keras_mvn.regularizers import HalfLogDet
    >>> current_config(HalfLogDet, {"strength": -0.2, "units": [1.0, 10.0]})
    {'strength': -0.2, 'target_scale': [1.0, 10.0]}

    """
    renamed = _RENAMED.get(keras.saving.get_registered_name(cls), {})
    return {renamed.get(key, key): value for key, value in config.items()}
