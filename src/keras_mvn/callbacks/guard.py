"""A callback that stops non-finite training, diagnoses it, and restores the last good weights."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, final

import keras

from keras_mvn._core.checks import whole
from keras_mvn.callbacks._diagnosis import Finding, examine_data, examine_inputs, examine_prediction
from keras_mvn.callbacks._recorder import Recorder, record
from keras_mvn.callbacks._running_model import Snapshot, find_head, sync
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import normal_heads, output_of

__all__ = ["NonFiniteGuard", "NonFiniteReport", "NonFiniteWarning"]


class NonFiniteWarning(UserWarning):
    """A loss or a weight is NaN or infinite; the message gives the diagnosis."""


@dataclass(frozen=True)
class NonFiniteReport:
    """A report of one failure found by `NonFiniteGuard`."""

    epoch: int
    """The epoch of the failure, counting from 0."""
    batch: int
    """The batch of the failure within the epoch, counting from 0."""
    cause: str
    """"x", "y", "units", "inputs", "scale", "condition", "learning_rate", or "unknown"."""
    rows: tuple[int, ...]
    """Rows of that batch that show the cause."""
    targets: tuple[str, ...]
    """Names or numbers of the targets that show the cause."""
    learning_rate: float
    """The learning rate at the time of the failure."""
    message: str
    """All findings, as human-readable text."""


@final
class NonFiniteGuard(keras.callbacks.Callback):
    """Handle a non-finite loss or weight: diagnose it, restore good weights, stop or continue.

    The warning names the epoch, the batch, the rows, the targets and the cause, checked in this
    order: x or y is not finite; a target is more than 1000 standard deviations from the head's
    origin (`adapt` was not called, or it is an outlier); a scale has collapsed or a correlation
    matrix has become singular; and, if the same rows have a finite loss with the last good
    weights, inputs that nothing scales (a pressure of 101 325 Pa), or else the learning rate.

    The loss is checked after every batch, and the weights whenever they are copied: at the end of
    every epoch, or every `snapshot_every` batches. A copy counts as good if it is finite and its
    loss is not far above that of the first batch (within 1 nat or 100 %), because a step that is
    too large often shows a few steps before anything overflows. Weights and optimizer are restored
    from the last good copy; with `snapshot_every=1`, only the bad step is lost.

    Put it first in the list of callbacks. Keras passes no data to callbacks, so the guard keeps
    references to the batches of the last two steps, by wrapping `model.train_function` during
    `fit` (except under a TensorFlow strategy with several replicas). If training continues after a
    failure, the loss in the logs is reset.

    Args:
        action: "stop", or "halve" to halve the learning rate and continue with the next batch. If
            x or y is not finite, no learning rate helps, and training stops.
        max_halvings: int ≥ 0, how many times the learning rate is halved; the next failure stops
            training.
        snapshot_every: int ≥ 1, number of batches between two copies of the weights; None copies
            once per epoch.
        data: (x, y), the arrays passed to `fit`: bad rows are then also listed by their number in
            these arrays.
        head: the head, if the model has several.
        output: name or index of the head's output, if the model has several.

    Attributes:
        reports: list with a `NonFiniteReport` for every failure; `report` is the last.

    Raises:
        ValueError: `action` is unknown, `max_halvings` < 0 or `snapshot_every` < 1; in `fit`,
            action="halve" with a learning rate schedule, which cannot be halved.

    Warns:
        NonFiniteWarning: at every failure.

    >>> import keras, numpy as np, warnings
    >>> from keras_mvn.losses import NegativeLogLikelihood
    >>> model = keras.Sequential([keras.Input((1,)), MultivariateNormalHead(2)])
    >>> model.compile("adam", NegativeLogLikelihood())
    >>> x, y = np.ones((4, 1)), np.array([[1.0, 2.0], [0.0, np.nan], [1.0, 1.0], [2.0, 0.0]])
    >>> guard = NonFiniteGuard()
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     history = model.fit(x, y, verbose=0, shuffle=False, callbacks=[guard])
    >>> guard.report.cause, guard.report.rows, guard.report.targets
    ('y', (1,), ('1',))
    >>> bool(np.isfinite(model.predict(x, verbose=0)).all())
    True

    """

    def __init__(
        self,
        action: str = "stop",
        max_halvings: int = 5,
        snapshot_every: int | None = None,
        data: tuple[Any, Any] | None = None,
        head: MultivariateNormalHead | None = None,
        output: str | int | None = None,
    ) -> None:
        super().__init__()
        if action not in ("stop", "halve"):
            raise ValueError(f"action={action!r} is not known. Expected 'stop' or 'halve'.")
        self.action = action
        self.max_halvings = whole(max_halvings, "max_halvings", "a number of halvings", 0)
        self.snapshot_every = (
            None
            if snapshot_every is None
            else whole(snapshot_every, "snapshot_every", "None or a number of batches", 1)
        )
        self.data = data
        self.head = head
        self.output = output
        self.reports: list[NonFiniteReport] = []

    @property
    def report(self) -> NonFiniteReport | None:
        """The report of the last failure, or None if there was none."""
        return self.reports[-1] if self.reports else None

    # --- called by Keras -------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Copy the initial weights."""
        if self.action == "halve":
            _check_halving(self.model.optimizer)
        self._head = _head_or_none(self.model, self.head)
        self._recorder: Recorder | None = None
        self._good = Snapshot(self.model, "the start of training")
        self._copy: Snapshot | None = None  # the latest, not yet known to be good
        self._limit: float | None = None
        """The highest loss at which a copy of the weights counts as good."""
        self._epoch = 0
        self._batch = -1
        self._seen = (0.0, 0)  # mean loss and number of batches since the metrics were reset
        self._since_copy = 0
        self._stopped = False
        self.reports = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Reset the counters for the new epoch."""
        self._epoch, self._batch, self._seen = epoch, -1, (0.0, 0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Record this batch."""
        if self.model.train_function is not self._recorder and _records(self.model):
            self._recorder = record(self.model)  # again if another callback has recompiled it
        if self._recorder is not None:
            self._recorder.expect(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the loss, which belongs to the weights before this step."""
        steps, self._batch = batch - self._batch, batch
        loss = self._loss_of_these(float((logs or {}).get("loss", 0.0)), steps)
        if not math.isfinite(loss):
            self._fail(f"the loss is {loss}")
            return
        if self._limit is None:
            self._limit = loss + max(1.0, abs(loss))
        if self._copy is not None and loss <= self._limit:
            self._good, self._copy = self._copy, None
        self._since_copy += steps
        if self.snapshot_every is not None and self._since_copy >= self.snapshot_every:
            self._take_copy(f"epoch {self._epoch + 1}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Copy the weights and check them."""
        if not self._stopped:
            self._take_copy(f"the end of epoch {epoch + 1}")

    def on_train_end(self, logs: Any = None) -> None:
        """Remove the recorder."""
        if isinstance(self.model.train_function, Recorder):
            self.model.train_function = self.model.train_function.function

    # --- handling a failure ----------------------------------------------------------------------

    def _loss_of_these(self, mean: float, steps: int) -> float:
        """Return the mean loss of the last steps, from the mean since the metrics were reset."""
        before, self._seen = self._seen, (mean, self._seen[1] + steps)
        # An infinite mean stays infinite: 0 · inf for the first batch would be NaN.
        return mean if not before[1] else (mean * self._seen[1] - before[0] * before[1]) / steps

    def _take_copy(self, when: str) -> None:
        self._since_copy = 0
        self._copy = Snapshot(self.model, when)
        if broken := self._copy.not_finite():
            self._fail(f"the loss is finite, but {_names(broken)} became NaN or infinite")

    def _restore(self) -> None:
        """Restore the latest copy if its loss on the batches before is good, else the last good."""
        copy, self._copy = self._copy, None
        if copy is not None and not copy.not_finite() and self._recorder is not None:
            copy.restore(self.model)
            losses = [_loss(self.model, data) for data in self._recorder.earlier()]
            if losses and sum(losses) / len(losses) <= (self._limit or math.inf):
                self._good = copy
                return
        self._good.restore(self.model)

    def _fail(self, what: str) -> None:
        learning_rate = _learning_rate(self.model.optimizer)
        now = Snapshot(self.model, "now")
        recent = [] if self._recorder is None else self._recorder.batches()
        # Predictions of non-finite weights are not informative.
        symptoms = [] if now.not_finite() else self._examine_weights(recent)
        self._restore()
        number, findings = self._diagnose(recent, symptoms, learning_rate)
        cause = findings[0] if findings else Finding("unknown", "could not be determined")
        stop, consequence = self._decide(cause, learning_rate)
        message = "\n".join(
            [
                f"Not finite in epoch {self._epoch + 1}, batch {number + 1}: {what}.",
                *(f"  cause: {finding.text}." for finding in findings[:1] or [cause]),
                *(f"  also: {finding.text}." for finding in findings[1:]),
                *self._table_lines(),
                f"  Restored the weights and the optimizer from {self._good.when}. {consequence}",
            ]
        )
        self.reports.append(
            NonFiniteReport(
                self._epoch, number, cause.cause, cause.rows, cause.targets, learning_rate, message
            )
        )
        if stop:
            self._stopped = True
            self.model.stop_training = True
        else:
            self.model.optimizer.learning_rate = 0.5 * learning_rate
            self.model.reset_metrics()  # the mean loss of this epoch stays NaN otherwise
            self._seen = (0.0, 0)
        warnings.warn(message, NonFiniteWarning, stacklevel=2)

    def _decide(self, cause: Finding, learning_rate: float) -> tuple[bool, str]:
        if self.action == "stop":
            return True, "Training stops."
        if cause.cause in ("x", "y"):
            return True, "Training stops: no learning rate can fix the data."
        if len(self.reports) >= self.max_halvings:
            return True, f"Training stops after {self.max_halvings} halvings of the learning rate."
        return False, f"Training continues with learning_rate={0.5 * learning_rate:g}."

    def _diagnose(
        self, recent: list[tuple[int, Any]], symptoms: list[Finding], learning_rate: float
    ) -> tuple[int, list[Finding]]:
        """Return the number of the bad batch, and the findings with the likeliest cause first."""
        for number, data in recent:
            if findings := examine_data(data, self._head, _missing_allowed(self.model)):
                return number, findings
        for number, data in recent:
            if findings := self._examine_weights([(number, data)]):
                return number, [*findings, *symptoms]
        number = recent[0][0] if recent else self._batch
        loss = _loss(self.model, recent[0][1]) if recent else math.nan
        if not math.isfinite(loss):
            return number, symptoms
        text = (
            f"the steps are too large at learning_rate={learning_rate:g}: the same rows have a "
            f"loss of {loss:.4g} with the last good weights. Lower the learning rate, or clip "
            "gradients (clipnorm=1.0 in the optimizer)"
        )
        unscaled = examine_inputs(recent[0][1], self.model)
        return number, [*unscaled, Finding("learning_rate", text), *symptoms]

    def _examine_weights(self, recent: list[tuple[int, Any]]) -> list[Finding]:
        """Find problems in the predictions of the current weights."""
        if self._head is None:
            return []
        sync(self.model)
        return [
            finding
            for _, data in recent
            for finding in examine_prediction(
                output_of(_predict(self.model, data), self.output, "NonFiniteGuard"), self._head
            )
        ][:1]

    def _table_lines(self) -> list[str]:
        if self.data is None:
            return []
        found = examine_data(self.data, self._head, _missing_allowed(self.model))
        return [f"  in the table: {finding.text}." for finding in found]


def _head_or_none(model: Any, head: MultivariateNormalHead | None) -> Any:
    """Return the model's head; None if it has none, which makes the diagnosis less specific."""
    return find_head(model, head, "NonFiniteGuard") if head or normal_heads(model) else None


def _records(model: Any) -> bool:
    strategy = getattr(model, "distribute_strategy", None)
    return strategy is None or strategy.num_replicas_in_sync == 1


def _check_halving(optimizer: Any) -> None:
    if isinstance(optimizer.get_config().get("learning_rate"), dict):
        raise ValueError(
            "NonFiniteGuard(action='halve') cannot halve a LearningRateSchedule. Give the optimizer"
            " a float (keras.callbacks.LearningRateScheduler can change it), or use action='stop'."
        )


def _learning_rate(optimizer: Any) -> float:
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _missing_allowed(model: Any) -> bool:
    return getattr(model.loss, "missing", None) == "marginalize"


def _predict(model: Any, data: Any) -> Any:
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    return model(keras.tree.map_structure(keras.ops.convert_to_tensor, x), training=False)


def _loss(model: Any, data: Any) -> float:
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    loss = model.compute_loss(x, y, _predict(model, data), weight, training=False)
    return float(keras.ops.convert_to_numpy(loss))


def _names(paths: list[str], most: int = 3) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")
