"""Stop a run that is no longer finite, say why, and give back the last good weights."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, final

import keras

from keras_mvn._core.checks import whole
from keras_mvn.callbacks._diagnosis import Finding, examine_data, examine_prediction
from keras_mvn.callbacks._recorder import Recorder, record
from keras_mvn.callbacks._training import Snapshot, find_head, sync
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import heads, output_of

__all__ = ["NonFiniteGuard", "NonFiniteReport", "NonFiniteWarning"]


class NonFiniteWarning(UserWarning):
    """A loss or a weight is NaN or infinite; the message is the diagnosis."""


@dataclass(frozen=True)
class NonFiniteReport:
    """What `NonFiniteGuard` found."""

    epoch: int
    """From 0."""
    batch: int
    """Within the epoch, from 0: where it showed."""
    cause: str
    """"x", "y", "units", "scale", "condition", "learning_rate", or "unknown"."""
    rows: tuple[int, ...]
    """Rows of that batch that show the cause."""
    targets: tuple[str, ...]
    """Names or numbers of the targets that show the cause."""
    learning_rate: float
    """When it happened."""
    message: str
    """All findings, for people."""


@final
class NonFiniteGuard(keras.callbacks.Callback):
    """At the first loss or weight that is not finite: say why, restore, stop or go on.

    The warning names the epoch, the batch, the rows and the targets, and the cause it can
    establish, in this order: x or y that is not finite; a target more than 1000 standard
    deviations from the head's origin (`adapt` was forgotten, or an outlier); a scale that
    collapsed or a correlation that became singular; and, where the same rows have a finite loss
    with the last good weights, the learning rate.

    The loss is looked at after every batch, the weights whenever they are copied: at the end of
    every epoch, or every `snapshot_every` batches. A copy counts as good if it is finite and if
    the loss that it gives is not far above that of the first batch: within 1 nat or 100 %, as a
    step that is too long often shows a few steps before anything overflows. Weights and optimizer
    go back to the last good copy; with `snapshot_every=1` only the bad step is left out.

    Put it first in the list of callbacks. Keras hands callbacks no data, so the guard keeps
    references to the batches of the last two steps, by wrapping `model.train_function` during
    `fit` (not under a TensorFlow strategy of several replicas). The loss in the logs begins anew
    after a failure that training survives.

    Args:
        action: "stop"; or "halve": halve the learning rate and go on with the next batch. Where x
            or y is not finite, no learning rate helps: it stops.
        max_halvings: how often the rate is halved; the next failure stops.
        snapshot_every: batches between two copies of the weights, None: one per epoch.
        data: (x, y) arrays that `fit` gets: their rows are named too, by number in the table.
        head: the head, where the model has several.
        output: name or index of the head's output, where the model has several.

    Attributes:
        reports: a `NonFiniteReport` of every failure; `report` is the last.

    Raises:
        ValueError: an unknown action, max_halvings < 0, snapshot_every < 1; in `fit`,
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
        self.max_halvings = whole(max_halvings, "max_halvings", "how often", 0)
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
        """The last failure, None while all is well."""
        return self.reports[-1] if self.reports else None

    # --- what Keras calls ------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Copy the weights training begins with."""
        if self.action == "halve":
            _check_halving(self.model.optimizer)
        self._head = _head_or_none(self.model, self.head)
        self._recorder: Recorder | None = None
        self._good = Snapshot(self.model, "the start of training")
        self._copy: Snapshot | None = None  # the latest, not known to be good yet
        self._limit: float | None = None
        """The highest loss of weights worth going back to."""
        self._epoch = 0
        self._batch = -1
        self._seen = (0.0, 0)  # mean loss and number of batches since the metrics began anew
        self._since_copy = 0
        self._stopped = False
        self.reports = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count."""
        self._epoch, self._batch, self._seen = epoch, -1, (0.0, 0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Record this batch."""
        if self.model.train_function is not self._recorder and _records(self.model):
            self._recorder = record(self.model)  # again where another callback compiled anew
        if self._recorder is not None:
            self._recorder.expect(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss, which is of the weights before this step."""
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
        """Look at the weights, and copy them."""
        if not self._stopped:
            self._take_copy(f"the end of epoch {epoch + 1}")

    def on_train_end(self, logs: Any = None) -> None:
        """Take the recorder out."""
        if isinstance(self.model.train_function, Recorder):
            self.model.train_function = self.model.train_function.function

    # --- what happens ----------------------------------------------------------------------------

    def _loss_of_these(self, mean: float, steps: int) -> float:
        """The mean loss of the last steps, from the mean since the metrics began anew."""
        before, self._seen = self._seen, (mean, self._seen[1] + steps)
        # An infinite mean stays so: 0 · inf for the first batch would be NaN.
        return mean if not before[1] else (mean * self._seen[1] - before[0] * before[1]) / steps

    def _take_copy(self, when: str) -> None:
        self._since_copy = 0
        self._copy = Snapshot(self.model, when)
        if broken := self._copy.not_finite():
            self._fail(f"the loss is finite, but {_names(broken)} became NaN or infinite")

    def _restore(self) -> None:
        """The latest copy, if it gives a good loss for the batches before, or the last good."""
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
        # Of weights that are not finite, predictions say nothing.
        symptoms = [] if now.not_finite() else self._examine_weights(recent)
        self._restore()
        number, findings = self._diagnose(recent, symptoms, learning_rate)
        cause = findings[0] if findings else Finding("unknown", "no cause could be established")
        stop, consequence = self._decide(cause, learning_rate)
        message = "\n".join(
            [
                f"Not finite in epoch {self._epoch + 1}, batch {number + 1}: {what}.",
                *(f"  cause: {finding.text}." for finding in findings[:1] or [cause]),
                *(f"  also: {finding.text}." for finding in findings[1:]),
                *self._table_lines(),
                f"  Weights and optimizer are those of {self._good.when} again. {consequence}",
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
            return True, "Training stops, as no learning rate mends the data."
        if len(self.reports) >= self.max_halvings:
            return True, f"Training stops after {self.max_halvings} halvings of the learning rate."
        return False, f"Training goes on with learning_rate={0.5 * learning_rate:g}."

    def _diagnose(
        self, recent: list[tuple[int, Any]], symptoms: list[Finding], learning_rate: float
    ) -> tuple[int, list[Finding]]:
        """The number of the batch to blame, and what is wrong, the likeliest cause first."""
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
            f"the steps are too long, learning_rate={learning_rate:g}: the same rows have a loss "
            f"of {loss:.4g} with the last good weights. Lower it, or clip gradients "
            "(clipnorm=1.0 in the optimizer)"
        )
        return number, [Finding("learning_rate", text), *symptoms]

    def _examine_weights(self, recent: list[tuple[int, Any]]) -> list[Finding]:
        """What is wrong with the predictions of the weights as they are."""
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
    """The model's head; None for a model without, of which less can be said."""
    return find_head(model, head, "NonFiniteGuard") if head or heads(model) else None


def _records(model: Any) -> bool:
    strategy = getattr(model, "distribute_strategy", None)
    return strategy is None or strategy.num_replicas_in_sync == 1


def _check_halving(optimizer: Any) -> None:
    if isinstance(optimizer.get_config().get("learning_rate"), dict):
        raise ValueError(
            "NonFiniteGuard(action='halve') cannot halve a LearningRateSchedule. Give the optimizer"
            " a number (keras.callbacks.LearningRateScheduler can change it), or use action='stop'."
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
