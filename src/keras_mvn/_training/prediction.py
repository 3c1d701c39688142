"""Predictions of trained networks, batch by batch, and networks as bytes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions import Mixture, MultivariateNormal
from keras_mvn.layers._find_heads import heads

__all__ = ["from_bytes", "predict", "predict_normal", "to_bytes"]


EVALUATED_AT_ONCE = 4096
"""Rows in a batch of validation and prediction."""


def predict(model: Any, x: Any) -> Array:
    """y_pred of all rows, in batches of few different sizes: those that are compiled are few."""
    size = min(EVALUATED_AT_ONCE, max(64, 1 << max(len(x) - 1, 0).bit_length()))
    parts = []
    for start in range(0, len(x), size):
        part = np.asarray(x[start : start + size], dtype=keras.config.floatx())
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        y_pred = keras.ops.convert_to_numpy(model.predict_on_batch(padded))
        parts.append(np.asarray(y_pred)[: len(part)])
    return np.concatenate(parts)


def predict_normal(members: Sequence[Any], x: Any) -> MultivariateNormal:
    """One normal per row; of several members the normal with their mixture's mean and covariance.

    Source: Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017, who do so for one target.
    """
    head = heads(members[0])[-1]
    y_pred = [predict(member, x) for member in members]
    if len(y_pred) == 1:
        return head.distribution(y_pred[0])
    return Mixture(head.distribution(np.stack(y_pred))).moments()


def to_bytes(model: Any) -> bytes:
    """The `.keras` file."""
    with _temporary_file() as path:
        model.save(path)
        return path.read_bytes()


def from_bytes(content: bytes) -> Any:
    """The model of a `.keras` file, on any backend."""
    with _temporary_file() as path:
        path.write_bytes(content)
        return keras.models.load_model(path)


@contextlib.contextmanager
def _temporary_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "model.keras"
