"""Predictions of trained networks in batches, and networks as bytes."""

from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions import Distribution, Mixture
from keras_mvn.layers._find_heads import heads

__all__ = [
    "averaged",
    "delivered",
    "from_bytes",
    "has_components",
    "load_to_predict",
    "predict",
    "to_bytes",
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


def delivered(answers: Sequence[Distribution], weights: Array) -> Distribution:
    """Return what is delivered of the answers of several models to the same rows.

    Of normals and of Student's t, one of these with the mean and the covariance of their mixture,
    so that users get an ellipsoid; of mixtures, the mixture of all components.

    Source: Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017, who do so for one target.
    """
    if len(answers) == 1:
        return answers[0]
    mixture = Mixture(answers, weights)
    found: Distribution = mixture if any(map(has_components, answers)) else mixture.matched()
    return found


def averaged(answers: Sequence[Distribution]) -> Distribution:
    """Return one answer with as many components as each of these, and the moments of all.

    Component i stands for that of all answers, which must be those of one model at several inputs.
    """
    if not has_components(answers[0]):
        matched: Distribution = Mixture(answers).matched()
        return matched
    each = [(list(one.components), _by_row(one)) for one in cast(Sequence[Mixture], answers)]
    weights = np.stack([weight for _, weight in each])  # (answers, components, rows)
    total = weights.sum(axis=0)
    shares = np.where(total > 0.0, weights / np.where(total > 0.0, total, 1.0), 1.0 / len(each))
    components = [
        Mixture([parts[i] for parts, _ in each], shares[:, i]).matched() for i in range(len(total))
    ]
    return Mixture(components, total / len(each))


def has_components(answer: Distribution) -> bool:
    """Whether each distribution is a mixture of several."""
    return len(answer.parts() or ()) > 1


def _by_row(answer: Mixture) -> Array:
    weights = answer.weights
    return np.broadcast_to(weights.reshape(len(weights), -1), (len(weights), len(answer)))


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
