"""Backups from which a killed training run can resume: one file, replaced after every epoch.

`keras.callbacks.BackupAndRestore` saves weights and the epoch number, but not the state of early
stopping, so that a resumed run would stop at a different epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_mvn._core.files import replacing
from keras_mvn._core.types import Array

__all__ = ["State", "read", "write", "write_finished"]

NAME = "training.npz"


@dataclass
class State:
    """The state of a training run between two epochs."""

    fingerprint: str
    """Hash of data and settings: a run resumes only with those it began with."""
    epoch: int
    """The next epoch."""
    finished: bool = False
    """Whether the weights are the final ones."""
    history: dict[str, list[float]] = field(default_factory=dict)
    stopping: dict[str, Any] = field(default_factory=dict)
    """The state of early stopping, as plain numbers."""
    weights: list[Array] = field(default_factory=list)
    optimizer: list[Array] = field(default_factory=list)
    best: list[Array] = field(default_factory=list)


_ARRAYS = ("weights", "optimizer", "best")
_PLAIN = ("fingerprint", "epoch", "finished", "history", "stopping")


def write(folder: Path, state: State) -> None:
    """Replace the file; whenever the process is killed, the old or the new file is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: getattr(state, name) for name in _PLAIN}
    arrays = {
        f"{name}_{i}": array for name in _ARRAYS for i, array in enumerate(getattr(state, name))
    }
    sizes = {name: len(getattr(state, name)) for name in _ARRAYS}
    with replacing(folder / NAME) as fresh:
        np.savez(fresh, plain=np.array(json.dumps({**plain, "sizes": sizes})), **arrays)


def write_finished(
    folder: Path, fingerprint: str, history: dict[str, list[float]], weights: list[Array]
) -> None:
    """Write the result of a run: resuming it trains nothing."""
    epochs = len(history.get("loss", []))
    write(folder, State(fingerprint, epochs, finished=True, history=history, weights=weights))


def read(folder: Path, fingerprint: str) -> State | None:
    """Read the state that `write` wrote; None if there is no file.

    Raises:
        ValueError: the file was written by a run with other data or settings.

    """
    if not (folder / NAME).is_file():
        return None
    with np.load(folder / NAME, allow_pickle=False) as file:
        plain = json.loads(str(file["plain"]))
        sizes = plain.pop("sizes")
        arrays: dict[str, Any] = {
            name: [file[f"{name}_{i}"] for i in range(sizes[name])] for name in _ARRAYS
        }
    if plain["fingerprint"] != fingerprint:
        raise ValueError(
            f"{folder / NAME} was written by a run with other data, settings or random_state, "
            "so training cannot resume from it. Repeat the original call, or empty the folder."
        )
    return State(**plain, **arrays)
