"""Predictions of trained networks in batches, and networks as bytes."""

from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._gaussian import lower_factor
from keras_mvn.distributions._predicted import Predicted
from keras_mvn.layers._find_heads import heads

__all__ = [
    "from_bytes",
    "load_to_predict",
    "predict",
    "to_bytes",
    "widened",
]


EVALUATED_AT_ONCE = 4096
"""Rows per batch in validation and prediction."""


def predict(model: Any, x: Any) -> Array:
    """Return y_pred of all rows, in batches of few different sizes, so that few are compiled."""
    found = heads(model)
    if found and found[-1].ignores_inputs:
        return np.repeat(found[-1].constant_prediction(), len(x), axis=0)
    size = min(EVALUATED_AT_ONCE, max(64, 1 << max(len(x) - 1, 0).bit_length()))
    parts = []
    for start in range(0, len(x), size):
        part = np.asarray(x[start : start + size], dtype=keras.config.floatx())
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        y_pred = keras.ops.convert_to_numpy(model.predict_on_batch(padded))
        parts.append(np.asarray(y_pred)[: len(part)])
    return np.concatenate(parts)


def widened(answer: Predicted, spread: Array) -> Predicted:
    """Return distributions of the same mean and family, with Σ s sᵀ added to the covariances.

    The sum is not formed: a QR factorization of the stacked factors keeps their accuracy.

    Args:
        answer: distributions of batch shape (n,).
        spread: (m, n, d), the vectors s.

    """
    beside = [answer.moments().scale_tril, np.moveaxis(spread, 0, -1)]
    tril = lower_factor(np.concatenate(beside, axis=-1))
    found = MultivariateNormal(answer.center, scale_tril=tril, target_names=answer.target_names)
    return answer.with_moments_of(found, answer.law)


def to_bytes(model: Any) -> bytes:
    """Return the contents of the model's `.keras` file."""
    with _temporary_file() as path:
        model.save(path)
        return path.read_bytes()


def from_bytes(content: bytes) -> Any:
    """Load a model from the contents of a `.keras` file, on any backend."""
    with _temporary_file() as path:
        path.write_bytes(content)
        return keras.models.load_model(path)


def load_to_predict(path: Path) -> Any:
    """Load a network from a `.keras` file for predictions alone, in a fraction of the time.

    The network has no loss and no optimizer. Its initial weights, which the file's weights replace,
    are zeros instead of random numbers, whose draws JAX would compile for each shape.
    """
    with _temporary_file() as copy:
        _copy_without_random_weights(path, copy)
        return keras.models.load_model(copy, compile=False)


def _copy_without_random_weights(path: Path, copy: Path) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = json.dumps(_without_random_weights(json.loads(content))).encode()
            target.writestr(name, content)


def _without_random_weights(config: Any) -> Any:
    """Return a configuration in which Keras' own initializers are replaced by zeros."""
    if isinstance(config, list):
        return [_without_random_weights(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.get("module") == "keras.initializers":
        return {**config, "class_name": "Zeros", "config": {}}
    return {name: _without_random_weights(value) for name, value in config.items()}


@contextlib.contextmanager
def _temporary_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "model.keras"
