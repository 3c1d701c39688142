"""Keras callbacks of a training run: early stopping, backups, ^C, deadlines, repeatable epochs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mvn._core.interrupts import Interruption
from keras_mvn._training import backup
from keras_mvn._training.data import Batches
from keras_mvn._training.deadline import Deadline

__all__ = [
    "Backup",
    "EpochProgress",
    "RepeatableEpochs",
    "ResumableEarlyStopping",
    "StopAtDeadline",
    "StopWhenInterrupted",
    "seed_generators",
]

History = dict[str, list[float]]


class EpochProgress(keras.callbacks.Callback):
    """A callback that uses nothing but the beginning, the end and the logs of epochs.

    It can be used when several networks are trained at once, and then receives the means of their
    logs. With any other callback, networks are trained in turn, since it sees one model at a time.
    """


class ResumableEarlyStopping(keras.callbacks.EarlyStopping):
    """Early stopping that can resume; without validation, it keeps the latest weights."""

    def __init__(self, patience: int, validated: bool, earlier: backup.State | None) -> None:
        super().__init__("val_loss", patience=patience, mode="min", restore_best_weights=True)
        self._validated, self._earlier, self._epochs = validated, earlier, 0

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if self._earlier is not None:
            for name, value in self._earlier.stopping.items():
                setattr(self, name, value)
            self.best_weights = self._earlier.best or None

    def get_monitor_value(self, logs: Any) -> float:
        if self._validated:
            return float(logs["val_loss"])
        self._epochs += 1
        return -float(self._epochs)

    def numbers(self) -> dict[str, Any]:
        """Return the state as plain numbers."""
        return {
            "best": float(self.best),
            "wait": int(self.wait),
            "best_epoch": int(self.best_epoch),
            "_epochs": self._epochs,
        }


class RepeatableEpochs(keras.callbacks.Callback):
    """Makes everything random in an epoch depend on (seed, epoch) alone."""

    def __init__(self, batches: Batches, seed: int) -> None:
        super().__init__()
        self._batches, self._seed = batches, seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Draw the order of rows, and seed the noise of layers."""
        self._batches.begin_epoch(epoch)
        generators = list(seed_generators(self.model))
        if not generators:
            return
        sequence = np.random.SeedSequence([self._seed, epoch])
        keras.utils.set_random_seed(int(sequence.generate_state(1)[0]))  # for Keras on PyTorch
        for generator, state in zip(generators, sequence.spawn(len(generators)), strict=True):
            generator.state.assign([int(state.generate_state(1)[0] >> 1), 0])  # int32 on PyTorch


def seed_generators(layer: Any) -> Iterator[Any]:
    """Yield the seed generators of layers that draw random numbers in training."""
    for child in getattr(layer, "layers", ()):
        if getattr(child, "seed_generator", None) is not None:
            yield child.seed_generator
        yield from seed_generators(child)


class Backup(keras.callbacks.Callback):
    """Keeps the history, and the file from which a killed training run can resume.

    The file is written when an epoch begins: the weights are then those of the optimizer again, and
    early stopping has evaluated the previous epoch.

    Args:
        history: filled with the logs of every epoch.
        stopping: early stopping, whose state is also saved.
        folder: folder of the file; None keeps only the history.
        fingerprint: hash of data and settings.

    """

    def __init__(
        self,
        history: History,
        stopping: ResumableEarlyStopping,
        folder: Path | None,
        fingerprint: str,
    ) -> None:
        super().__init__()
        self._history, self._stopping = history, stopping
        self._folder, self._fingerprint = folder, fingerprint

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Write the state between two epochs."""
        if self._folder is None or epoch == 0:
            return
        variables = self.model.optimizer.variables
        state = backup.State(
            self._fingerprint,
            epoch,
            history=self._history,
            stopping=self._stopping.numbers(),
            weights=self.model.get_weights(),
            optimizer=[np.array(keras.ops.convert_to_numpy(v)) for v in variables],
            best=self._stopping.best_weights or [],
        )
        backup.write(self._folder, state)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Extend the history."""
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))

    def finish(self) -> None:
        """Write the final state."""
        if self._folder is None:
            return
        weights = self.model.get_weights()
        backup.write_finished(self._folder, self._fingerprint, self._history, weights)


class StopWhenInterrupted(keras.callbacks.Callback):
    """Stops training after ^C, between two steps."""

    def __init__(self, interruption: Interruption, stopping: ResumableEarlyStopping) -> None:
        super().__init__()
        self._interruption, self._stopping = interruption, stopping

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop training; before the end of the first epoch, raise KeyboardInterrupt as ^C does."""
        if not self._interruption.requested:
            return
        if self._stopping.best_weights is None:
            raise KeyboardInterrupt
        self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Start no further epoch."""
        if self._interruption.requested:
            self.model.stop_training = True


class StopAtDeadline(keras.callbacks.Callback):
    """Stops training at a deadline."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline, self._epochs = deadline, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the number of epochs before."""
        self._epochs = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop training if the deadline has passed."""
        if self._deadline.passed(self._epochs):
            self.model.stop_training = True
