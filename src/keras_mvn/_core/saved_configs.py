"""What configurations in files of earlier versions say, in today's words."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["current_config"]

_RENAMED: dict[str, dict[str, str]] = {
    "keras_mvn.regularizers>LogVolume": {"units": "target_scale"},
}
"""Registered name → key of 0.1.0 → key of today. Registered names themselves never change."""


def current_config(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the keys that the constructor of this class has today.

    Args:
        cls: a class that is registered with Keras.
        config: as a file has it; it is not changed.

    >>> from keras_mvn.regularizers import HalfLogDet
    >>> current_config(HalfLogDet, {"strength": -0.2, "units": [1.0, 10.0]})
    {'strength': -0.2, 'target_scale': [1.0, 10.0]}

    """
    renamed = _RENAMED.get(keras.saving.get_registered_name(cls), {})
    return {renamed.get(key, key): value for key, value in config.items()}
