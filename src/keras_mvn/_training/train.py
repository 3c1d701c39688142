"""Training on a table: the recipe of docs/training.md as one function, `train`.

It does not depend on scikit-learn; the estimator and the command line build on it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mvn._core.interrupts import Interruption, is_interrupt
from keras_mvn._core.random_state import random_state
from keras_mvn._core.types import Array
from keras_mvn._training import backup
from keras_mvn._training.callbacks import (
    Backup,
    RepeatableEpochs,
    ResumableEarlyStopping,
    StopAtDeadline,
    StopWhenInterrupted,
    seed_generators,
)
from keras_mvn._training.data import Batches, Moments, Part, Table
from keras_mvn._training.deadline import Deadline
from keras_mvn._training.prediction import EVALUATED_AT_ONCE
from keras_mvn._training.recipe import (
    Recipe,
    Schedule,
    loss_for,
    network,
    optimizer,
    schedule,
)
from keras_mvn.callbacks import NonFiniteGuard
from keras_mvn.layers._find_heads import heads
from keras_mvn.layers._head import Head

__all__ = ["Prepared", "Trained", "prepared", "train"]


History = dict[str, list[float]]


class Trained(NamedTuple):
    """The result of `train`."""

    model: Any
    """The model with the best weights, for inputs as they are in the table."""
    history: History
    interrupted: bool
    """Whether ^C ended training; the weights are then the best so far."""
    seconds: float

    @property
    def head(self) -> Head:
        """The head, the last layer."""
        return heads(self.model)[-1]

    @property
    def epochs(self) -> int:
        """The number of epochs trained."""
        return len(self.history.get("loss", ()))

    def summary(self) -> str:
        """Return a summary for users."""
        return f"{self.epochs} epochs in {self.seconds:.0f} s"


def train(
    recipe: Recipe,
    part: Part,
    inputs: Moments,
    seed: int,
    *,
    target_names: Sequence[str] | None = None,
    callbacks: Callable[[], Any] | None = None,
    deadline: Deadline | None = None,
    backup_dir: Path | None = None,
    interruption: Interruption | None = None,
    verbose: int = 0,
) -> Trained:
    """Train one network; the same seed gives the same weights.

    Args:
        recipe: network to train, and how.
        part: its rows; without any for early stopping, it trains all epochs.
        inputs: moments and range of the inputs, by which the network standardizes them.
        seed: seed of initial weights, order of rows, and dropout.
        target_names: d names.
        callbacks: function that returns further callbacks.
        deadline: when to stop, with the best weights so far.
        backup_dir: folder for backups: after a kill, the same call gives the same weights as an
            uninterrupted run; after training has finished, it returns the result.
        interruption: whether ^C was pressed; training then ends after the current step.
        verbose: as in `keras.Model.fit`.

    Raises:
        ValueError: `backup_dir` contains a run with other data or settings.
        KeyboardInterrupt: ^C was pressed before the first epoch was over.

    """
    began = time.monotonic()
    with random_state(seed):
        made = prepared(recipe, part, inputs, seed, target_names)
        batches = Batches(part.training, made.schedule.batch_size, seed)
        run = _Run(made.model, recipe, backup_dir, made.fingerprint)
        interrupted = run.go(
            batches,
            part.validation,
            seed,
            callbacks,
            deadline,
            interruption or Interruption(),
            verbose,
        )
    return Trained(run.model, run.history, interrupted, time.monotonic() - began)


class Prepared(NamedTuple):
    """A network that is ready for training."""

    model: Any
    """The compiled model, with its optimizer built."""
    schedule: Schedule
    fingerprint: str
    """Hash of data and settings, for backups."""


def prepared(
    recipe: Recipe,
    part: Part,
    inputs: Moments,
    seed: int,
    target_names: Sequence[str] | None,
) -> Prepared:
    """Build and compile a network for these rows; to be called within `random_state(seed)`.

    Args:
        recipe: network to train, and how.
        part: its rows.
        inputs: moments and range of the inputs.
        seed: seed of the training run.
        target_names: d names.

    """
    gaps = any(table is not None and table.has_gaps for table in (part.training, part.validation))
    missing = "marginalize" if gaps else "propagate"
    loss = loss_for(recipe.loss, recipe.covariance, missing, recipe.tails, recipe.n_components)
    model = network(recipe, loss, part, inputs, target_names)
    timing = schedule(recipe, len(part.training))
    model.compile(optimizer(recipe.learning_rate, timing.steps), loss=loss)
    model.optimizer.build(model.trainable_variables)
    fingerprint = _fingerprint(model, recipe, part, timing.batch_size, seed)
    return Prepared(model, timing, fingerprint)


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
        deadline: Deadline | None,
        interruption: Interruption,
        verbose: int,
    ) -> bool:
        """Train the model, and return whether training was interrupted."""
        earlier = self._take_up_earlier()
        if earlier is not None and earlier.finished:
            return False
        stopping = ResumableEarlyStopping(self.recipe.patience, validation is not None, earlier)
        keeper = Backup(self.history, stopping, self.folder, self.fingerprint)
        made = [] if make_callbacks is None else keras.tree.flatten(make_callbacks())
        evaluated = None if validation is None else Batches(validation, EVALUATED_AT_ONCE)
        chain = [
            NonFiniteGuard(),
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            RepeatableEpochs(batches, seed),
            keeper,
            stopping,
            StopWhenInterrupted(interruption, stopping),
            *([] if deadline is None else [StopAtDeadline(deadline)]),
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
            keeper.finish()
        return interruption.requested

    def _revive(self, weights: list[Array], steps_per_epoch: int) -> None:
        """Make a model usable again that stopped within a step, when JAX may own its buffers."""
        self.model.set_weights(weights)
        if keras.backend.backend() != "jax":
            return
        for generator in seed_generators(self.model):
            generator.state.assign([0, 0])
        self.model.compile(optimizer(self.recipe.learning_rate, steps_per_epoch), self.model.loss)
        # Without its state in the saved file, Keras would refuse to load the file.
        self.model.optimizer.build(self.model.trainable_variables)

    def _take_up_earlier(self) -> backup.State | None:
        """Return an earlier process's state, or None, and take over its weights and history."""
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


def _fingerprint(model: Any, recipe: Recipe, part: Part, size: int, seed: int) -> str:
    """Return a hash of all that determines the weights after n epochs, and which are best.

    The training data enter by the origins of inputs and head.

    Neither epochs nor patience enter: a killed run may resume for longer.
    """
    loss = {name: value for name, value in model.loss.get_config().items() if name != "name"}
    settings = (
        recipe.covariance,
        recipe.constant,
        getattr(recipe.activation, "__name__", recipe.activation),
        recipe.dropout,
        recipe.learning_rate,
        loss,
        (len(part.training), size, seed),
    )
    found = hashlib.sha256(repr(settings).encode())
    limit, standardization = model.layers[1:3]
    moments = (standardization.input_mean, standardization.input_variance)
    for array in (limit.lower, limit.upper, *moments, *model.get_weights()):
        found.update(np.asarray(array).astype(np.float32).tobytes())
    for block in () if part.validation is None else part.validation.parts():
        for array in block:
            found.update(array.tobytes())
    return found.hexdigest()
