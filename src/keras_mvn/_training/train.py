"""How a table is trained on: the recipe of docs/training.md as one function, `train`.

Knows nothing of scikit-learn; estimator and command line stand on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mvn._core.interrupts import Interruption, deferred_interrupts, is_interrupt
from keras_mvn._core.random_state import random_state
from keras_mvn._core.types import Array
from keras_mvn._training import backup
from keras_mvn._training.data import Batches, Table
from keras_mvn._training.recipe import Recipe, batch_size_for, loss_for, network, optimizer
from keras_mvn.callbacks import NonFiniteGuard
from keras_mvn.distributions import Mixture, MultivariateNormal
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import heads

__all__ = [
    "Trained",
    "from_bytes",
    "predict",
    "predict_normal",
    "to_bytes",
    "train",
]

EVALUATED_AT_ONCE = 4096
"""Rows in a batch of validation and prediction."""

History = dict[str, list[float]]


class Trained(NamedTuple):
    """What `train` gives back."""

    model: Any
    """With the best weights; takes inputs as they are in the table."""
    history: History
    interrupted: bool
    """By ^C: the weights are the best until then."""
    seconds: float

    @property
    def head(self) -> MultivariateNormalHead:
        """The last layer."""
        return heads(self.model)[-1]

    @property
    def epochs(self) -> int:
        """How many it was trained."""
        return len(self.history.get("loss", ()))

    def summary(self) -> str:
        """For people."""
        return f"{self.epochs} epochs in {self.seconds:.0f} s"


def train(
    recipe: Recipe,
    training: Table,
    validation: Table | None,
    seed: int,
    *,
    residuals: Any = None,
    target_names: Sequence[str] | None = None,
    callbacks: Callable[[], Any] | None = None,
    deadline: float | None = None,
    backup_dir: Path | None = None,
    verbose: int = 0,
) -> Trained:
    """Train one network; the same seed gives the same weights.

    Args:
        recipe: what to train.
        training: rows to learn from.
        validation: rows for early stopping; None trains all epochs.
        seed: of initial weights, order of rows, and dropout.
        residuals: as `MultivariateNormalHead.adapt` takes them.
        target_names: d names.
        callbacks: a function that makes further callbacks.
        deadline: `time.monotonic()` at which to stop, with the best weights so far.
        backup_dir: of files to go on from: the same call after a kill gives the same weights as
            if there had been none, and after the end gives what came out.
        verbose: as in `keras.Model.fit`.

    Raises:
        ValueError: `backup_dir` holds a run with other data or settings.
        KeyboardInterrupt: ^C before the first epoch was over.

    """
    began = time.monotonic()
    gaps = training.has_gaps or (validation is not None and validation.has_gaps)
    loss = loss_for(recipe.loss, recipe.covariance, "marginalize" if gaps else "propagate")
    with random_state(seed):
        model = network(recipe, loss, training, residuals, target_names)
        size = recipe.batch_size or batch_size_for(len(training))
        batches = Batches(training, size, seed)
        model.compile(optimizer(recipe.learning_rate, len(batches)), loss=loss)
        model.optimizer.build(model.trainable_variables)
        fingerprint = _fingerprint(model, recipe, training, validation, size, seed)
        run = _Run(model, recipe, backup_dir, fingerprint)
        interrupted = run.go(batches, validation, seed, callbacks, deadline, verbose)
    return Trained(run.model, run.history, interrupted, time.monotonic() - began)


# --- a run ---------------------------------------------------------------------------------------


class _Run:
    """One call of `fit`, from the start or from a backup."""

    def __init__(
        self, model: Any, recipe: Recipe, backup_dir: Path | None, fingerprint: str
    ) -> None:
        self.model, self.recipe = model, recipe
        self.history: History = {}
        self.folder, self.fingerprint = backup_dir, fingerprint

    def go(
        self,
        batches: Batches,
        validation: Table | None,
        seed: int,
        make_callbacks: Callable[[], Any] | None,
        deadline: float | None,
        verbose: int,
    ) -> bool:
        """Train; returns whether it was interrupted."""
        earlier = self._take_up_earlier()
        if earlier is not None and earlier.finished:
            return False
        stopping = _Stopping(self.recipe.patience, validation is not None, earlier)
        backup = _Backup(self, stopping)
        made = [] if make_callbacks is None else keras.tree.flatten(make_callbacks())
        evaluated = None if validation is None else Batches(validation, EVALUATED_AT_ONCE)
        with deferred_interrupts() as interruption:
            chain = [
                NonFiniteGuard(),
                keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
                _Epochs(batches, seed),
                backup,
                stopping,
                _Interrupted(interruption, stopping),
                *([] if deadline is None else [_Deadline(deadline)]),
                *made,
            ]
            try:
                self.model.fit(
                    batches,
                    validation_data=evaluated,
                    epochs=self.recipe.epochs,
                    initial_epoch=0 if earlier is None else earlier.epoch,
                    callbacks=chain,
                    shuffle=False,
                    verbose=verbose,
                )
            except BaseException as error:
                if not is_interrupt(error):
                    raise
                if stopping.best_weights is None:
                    raise KeyboardInterrupt from error
                self._revive(stopping.best_weights, len(batches))
                return True
        if not interruption.requested:
            backup.finish()
        return interruption.requested

    def _revive(self, weights: list[Array], steps_per_epoch: int) -> None:
        """Make a model that was stopped in mid-step, when JAX may have its buffers, usable."""
        self.model.set_weights(weights)
        if keras.backend.backend() != "jax":
            return
        for generator in _seed_generators(self.model):
            generator.state.assign([0, 0])
        self.model.compile(optimizer(self.recipe.learning_rate, steps_per_epoch), self.model.loss)
        # Or the file would hold no state of it, and Keras would refuse to load the file.
        self.model.optimizer.build(self.model.trainable_variables)

    def _take_up_earlier(self) -> backup.State | None:
        """What an earlier process left, if it did; weights and history are then those."""
        if self.folder is None:
            return None
        earlier = backup.read(self.folder, self.fingerprint)
        if earlier is not None:
            self.history = earlier.history
            self.model.set_weights(earlier.weights)
        if earlier is not None and not earlier.finished:
            variables = self.model.optimizer.variables
            for variable, value in zip(variables, earlier.optimizer, strict=True):
                variable.assign(value)
        return earlier


class _Stopping(keras.callbacks.EarlyStopping):
    """Early stopping that can go on; without validation it keeps the latest weights."""

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
        """What it has seen."""
        return {
            "best": float(self.best),
            "wait": int(self.wait),
            "best_epoch": int(self.best_epoch),
            "_epochs": self._epochs,
        }


class _Epochs(keras.callbacks.Callback):
    """Everything random in an epoch follows from (seed, epoch)."""

    def __init__(self, batches: Batches, seed: int) -> None:
        super().__init__()
        self._batches, self._seed = batches, seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Draw the order of rows, and seed the noise of layers."""
        self._batches.begin_epoch(epoch)
        generators = list(_seed_generators(self.model))
        if not generators:
            return
        sequence = np.random.SeedSequence([self._seed, epoch])
        keras.utils.set_random_seed(int(sequence.generate_state(1)[0]))  # Keras' on PyTorch
        for generator, state in zip(generators, sequence.spawn(len(generators)), strict=True):
            generator.state.assign([int(state.generate_state(1)[0] >> 1), 0])  # int32 on PyTorch


def _seed_generators(layer: Any) -> Iterator[Any]:
    """Of the layers that draw while training."""
    for child in getattr(layer, "layers", ()):
        if getattr(child, "seed_generator", None) is not None:
            yield child.seed_generator
        yield from _seed_generators(child)


class _Backup(keras.callbacks.Callback):
    """Keeps the history, and the file to go on from.

    Writes as an epoch begins, when the weights are those of the optimizer again and early
    stopping has judged the epoch before.
    """

    def __init__(self, run: _Run, stopping: _Stopping) -> None:
        super().__init__()
        self._run, self._stopping = run, stopping

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Write."""
        if self._run.folder is None or epoch == 0:
            return
        variables = self.model.optimizer.variables
        state = backup.State(
            self._run.fingerprint,
            epoch,
            history=self._run.history,
            stopping=self._stopping.numbers(),
            weights=self.model.get_weights(),
            optimizer=[np.array(keras.ops.convert_to_numpy(v)) for v in variables],
            best=self._stopping.best_weights or [],
        )
        backup.write(self._run.folder, state)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Count."""
        for name, value in (logs or {}).items():
            self._run.history.setdefault(name, []).append(float(value))

    def finish(self) -> None:
        """Write the result."""
        if self._run.folder is None:
            return
        state = backup.State(
            self._run.fingerprint,
            len(self._run.history.get("loss", [])),
            finished=True,
            history=self._run.history,
            weights=self._run.model.get_weights(),
        )
        backup.write(self._run.folder, state)


class _Interrupted(keras.callbacks.Callback):
    """Stops after ^C, between two steps."""

    def __init__(self, interruption: Interruption, stopping: _Stopping) -> None:
        super().__init__()
        self._interruption, self._stopping = interruption, stopping

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop; with nothing to keep, before the first epoch is over, as ^C does."""
        if not self._interruption.requested:
            return
        if self._stopping.best_weights is None:
            raise KeyboardInterrupt
        self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Begin no other epoch."""
        if self._interruption.requested:
            self.model.stop_training = True


class _Deadline(keras.callbacks.Callback):
    """Stops at a time."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the clock."""
        if time.monotonic() > self._deadline:
            self.model.stop_training = True


def _fingerprint(
    model: Any, recipe: Recipe, training: Table, validation: Table | None, size: int, seed: int
) -> str:
    """Of what the weights after n epochs, and which are best, depend on.

    The origins of inputs and head are the training data's.

    Neither epochs nor patience: what was killed may go on for longer.
    """
    loss = {name: value for name, value in model.loss.get_config().items() if name != "name"}
    settings = (
        recipe.covariance,
        recipe.constant,
        getattr(recipe.activation, "__name__", recipe.activation),
        recipe.dropout,
        recipe.learning_rate,
        loss,
        (len(training), size, seed),
    )
    found = hashlib.sha256(repr(settings).encode())
    standardization = model.layers[1]
    for array in (standardization.input_mean, standardization.input_variance, *model.get_weights()):
        found.update(np.asarray(array).astype(np.float32).tobytes())
    for part in () if validation is None else validation.parts():
        for array in part:
            found.update(array.tobytes())
    return found.hexdigest()


# --- afterwards ----------------------------------------------------------------------------------


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
