"""A training job: what `DeepEnsemble.fit` was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """What `DeepEnsemble.fit` was asked for."""

    x: Any
    y: Any
    validation_data: Any
    epochs: int
    batch_size: int | None
    patience: int | None
    """None: no early stopping."""
    options: dict[str, Any]
    """Further arguments of `keras.Model.fit`."""
