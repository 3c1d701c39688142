"""Training several networks of one recipe in one pass on JAX, as `train` does in turn.

The networks may have the same rows, or each its own, as for cross-fitting.

The pass itself is in `keras_mvn.ensemble._one_pass`. This module adds the recipe's order of rows,
averaged weights, backups, deadline and ^C. With the same seeds, the weights are those of `train` up
to rounding, unless layers draw random numbers (dropout), whose draws differ.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mvn._core.interrupts import Interruption
from keras_mvn._core.random_state import random_state
from keras_mvn._training import backup
from keras_mvn._training.callbacks import EpochProgress
from keras_mvn._training.data import Moments, Part, Table
from keras_mvn._training.deadline import Deadline
from keras_mvn._training.prediction import EVALUATED_AT_ONCE
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.train import Prepared, Trained, prepared
from keras_mvn.ensemble._job import Job, Snapshot

__all__ = ["train_in_one_pass"]

LARGEST_TABLE = 1 << 28
"""Maximum bytes of training and validation rows, which the device must hold: 256 MiB."""


class _NotFiniteError(Exception):
    """Raised if a loss is not finite: when trained in turn, `NonFiniteGuard` explains why."""


def train_in_one_pass(
    recipe: Recipe,
    parts: Sequence[Part],
    inputs: Moments,
    seeds: Sequence[int],
    *,
    target_names: Sequence[str] | None = None,
    callbacks: Callable[[], Any] | None = None,
    deadline: Deadline | None = None,
    backup_dirs: Sequence[Path] = (),
    interruption: Interruption | None = None,
) -> list[Trained] | None:
    """Train a network for each seed, all at once; None if they have to be trained in turn.

    Args:
        recipe: network to train, and how.
        parts: the rows of each network.
        inputs: moments and range of the inputs.
        seeds: one seed for each network.
        target_names: d names.
        callbacks: as in `train`; with anything but `EpochProgress`, the result is None.
        deadline: when to stop, after an epoch.
        backup_dirs: one folder for each network, in which `train` finds the finished network; or
            empty.
        interruption: whether ^C was pressed; training then ends after the current epoch.

    Raises:
        ValueError: a backup is from a run with other data or settings.

    """
    if keras.backend.backend() != "jax" or len(seeds) < 2 or not _watches_epochs_alone(callbacks):
        return None
    rows = _Rows.of(parts)
    if rows is None or rows.bytes > LARGEST_TABLE:
        return None
    made = [] if callbacks is None else [callbacks()]
    began = time.monotonic()
    networks = []
    for part, seed in zip(parts, seeds, strict=True):
        with random_state(seed):
            networks.append(prepared(recipe, part, inputs, seed, target_names))
    watch = _Watch(networks, made, deadline, backup_dirs, interruption or Interruption())
    histories = _histories(recipe, rows, seeds, networks, watch)
    if histories is None:
        return None
    seconds = (time.monotonic() - began) / len(seeds)
    watch.finish(histories)
    return [
        Trained(one.model, history, watch.interrupted, seconds)
        for one, history in zip(networks, histories, strict=True)
    ]


def _watches_epochs_alone(callbacks: Callable[[], Any] | None) -> bool:
    """Whether what the function makes is known, without calling it, to be an `EpochProgress`."""
    made = callbacks.func if isinstance(callbacks, functools.partial) else callbacks
    return made is None or (isinstance(made, type) and issubclass(made, EpochProgress))


class _Rows(NamedTuple):
    """The rows of all networks, each once, and which of them are whose."""

    training: Table
    validation: Table | None
    learned: np.ndarray
    """Positions in `training`: (networks, rows)."""
    validated: np.ndarray
    """Positions in `validation`: (networks, rows)."""

    @classmethod
    def of(cls, parts: Sequence[Part]) -> _Rows | None:
        """Return the rows of these parts; None if they have different numbers of rows."""
        if len({part.sizes for part in parts}) > 1:
            return None
        training, learned = _joined([part.training for part in parts])
        tables = [part.validation for part in parts if part.validation is not None]
        if not tables:
            return cls(training, None, np.stack(learned), np.zeros((len(parts), 0), np.int32))
        validation, validated = _joined(tables)
        return cls(training, validation, np.stack(learned), np.stack(validated))

    @property
    def bytes(self) -> int:
        """The bytes that the device must hold."""
        rows = len(self.training) + (0 if self.validation is None else len(self.validation))
        columns = self.training.x.shape[1] + self.training.y.shape[1] + 1
        return rows * columns * np.dtype(keras.config.floatx()).itemsize


def _joined(tables: Sequence[Table]) -> tuple[Table, list[np.ndarray]]:
    """Return one table of all rows of tables of the same arrays, and the positions of each's."""
    together = np.unique(np.concatenate([table.rows for table in tables]))
    positions = [np.searchsorted(together, table.rows).astype(np.int32) for table in tables]
    return tables[0].of(together), positions


def _histories(
    recipe: Recipe,
    rows: _Rows,
    seeds: Sequence[int],
    networks: Sequence[Prepared],
    watch: _Watch,
) -> list[dict[str, list[float]]] | None:
    """Train the networks and return their histories; None if they cannot be trained at once."""
    from keras_mvn.ensemble import _one_pass  # imports JAX

    timing = networks[0].schedule
    used = timing.steps * timing.batch_size

    def orders(epoch: int) -> np.ndarray:
        drawn = [
            np.random.default_rng([seed, epoch]).permutation(own)[:used]
            for seed, own in zip(seeds, rows.learned, strict=True)
        ]
        return np.stack(drawn)

    x, y, *weight = rows.training.batch(rows.training.rows)
    validation = rows.validation
    job = Job(
        x,
        y,
        None if validation is None else validation.batch(validation.rows),
        recipe.epochs,
        timing.batch_size,
        None if validation is None else recipe.patience,
        {
            "sample_weight": weight[0] if weight else None,
            "validation_batch_size": EVALUATED_AT_ONCE,
        },
        orders=orders,
        validated=rows.validated,
        averaged=True,
        start=watch.start(),
        after_epoch=watch.after_epoch,
    )
    try:
        with random_state(seeds[0]):
            models = [one.model for one in networks]
            return _one_pass.train(models, job, seeds, lambda member, history: None)
    except (_one_pass.NotVectorizableError, _NotFiniteError):
        return None


class _Watch:
    """Handles progress, backups, the deadline and ^C between two epochs."""

    def __init__(
        self,
        networks: Sequence[Prepared],
        callbacks: Sequence[EpochProgress],
        deadline: Deadline | None,
        backup_dirs: Sequence[Path],
        interruption: Interruption,
    ) -> None:
        self._networks, self._callbacks = networks, callbacks
        self._deadline, self._interruption = deadline, interruption
        self._folders = list(backup_dirs)
        together = "".join(one.fingerprint for one in networks)
        self._fingerprint = hashlib.sha256(together.encode()).hexdigest()
        self._epoch, self._began, self._compiled = 0, time.monotonic(), False

    @property
    def interrupted(self) -> bool:
        """Whether ^C ended training."""
        return self._interruption.requested

    @property
    def _folder(self) -> Path | None:
        """The folder with the state of all networks while they are trained."""
        return self._folders[0].with_name("members") if self._folders else None

    def start(self) -> Snapshot | None:
        """Return the state that a killed process left, or None."""
        earlier = None if self._folder is None else backup.read(self._folder, self._fingerprint)
        if earlier is not None:
            self._epoch = earlier.epoch
        self._began_epoch()
        if earlier is None:
            return None
        stopping = dict(earlier.stopping)
        histories = stopping.pop("histories")
        return Snapshot(earlier.epoch, earlier.weights, earlier.best, stopping, histories)

    def _began_epoch(self) -> None:
        self._began = time.monotonic()
        for callback in self._callbacks:
            callback.on_epoch_begin(self._epoch)

    def after_epoch(self, logs: dict[str, np.ndarray], take: Callable[[], Snapshot]) -> bool:
        """Report progress, write a backup, and return whether to end training."""
        if not all(np.isfinite(values).all() for values in logs.values()):
            raise _NotFiniteError
        means = {name: float(values.mean()) for name, values in logs.items()}
        for callback in self._callbacks:
            callback.on_epoch_end(self._epoch, means)
        self._epoch += 1
        if self._folder is not None:
            state = take()
            stopping = {**state.stopping, "histories": state.histories}
            backup.write(
                self._folder,
                backup.State(
                    self._fingerprint,
                    state.epoch,
                    stopping=stopping,
                    weights=state.variables,
                    best=state.best,
                ),
            )
        # The first epoch was mostly compilation, and says nothing about the next.
        ahead = time.monotonic() - self._began if self._compiled else 0.0
        self._compiled = True
        late = self._deadline is not None and self._deadline.passed(self._epoch, ahead)
        if self._interruption.requested or late:
            return True
        self._began_epoch()
        return False

    def finish(self, histories: Sequence[dict[str, list[float]]]) -> None:
        """Write each network as `train` does, unless ^C ended training, which may be resumed."""
        if self._folder is None or self._interruption.requested:
            return
        for folder, one, history in zip(self._folders, self._networks, histories, strict=True):
            backup.write_finished(folder, one.fingerprint, history, one.model.get_weights())
        shutil.rmtree(self._folder, ignore_errors=True)
