"""A callback that warns when the covariance overfits, which the training loss does not show."""

from __future__ import annotations

import math
import warnings
from typing import Any, final

import keras

from keras_mvn._core.checks import whole
from keras_mvn.callbacks._running_model import find_head

__all__ = ["OverfittingWarning", "WarnOnOverfitting"]


class OverfittingWarning(UserWarning):
    """The validation likelihood is getting worse while the training likelihood improves."""


@final
class WarnOnOverfitting(keras.callbacks.Callback):
    """Warn once when the validation NLL diverges from the training NLL.

    A covariance that overfits becomes overconfident about residuals it has memorized: the training
    loss falls steadily while new rows become extremely unlikely, by hundreds of nats on small
    tables. The warning is issued if, for `patience` consecutive epochs,

        val(e) − val(b) > tolerance · d   and   train(e) < train(b),

    where b is the epoch with the lowest validation loss so far, and d the number of targets. Both
    losses come from the same validation set, so its size hardly matters; a single bad epoch does
    not cause a warning.

    Args:
        monitor: str, name in the logs; "loss" includes penalties, a metric such as
            "negative_log_likelihood" does not.
        tolerance: float ≥ 0, the increase of the validation loss to tolerate, in nats per target.
        patience: int ≥ 1, number of consecutive epochs.
        event_size: int, number of targets d; None takes it from the model's head.

    Raises:
        ValueError: `tolerance` is negative or `patience` < 1; in `fit`, there is neither a head
            nor an `event_size`.

    Warns:
        OverfittingWarning: once per `fit`; `parted_at` is then b, and None before.
        UserWarning: `fit` had no validation data, so nothing was monitored.

    >>> callback = WarnOnOverfitting(patience=2, event_size=1)
    >>> callback.on_train_begin()
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     for epoch, (train, val) in enumerate([(2.0, 2.0), (1.5, 1.8), (1.0, 2.2), (0.5, 3.0)]):
    ...         callback.on_epoch_end(epoch, {"loss": train, "val_loss": val})
    >>> callback.parted_at, len(caught)
    (1, 1)

    """

    def __init__(
        self,
        monitor: str = "loss",
        tolerance: float = 0.1,
        patience: int = 3,
        event_size: int | None = None,
    ) -> None:
        super().__init__()
        if not tolerance >= 0:
            raise ValueError(f"tolerance={tolerance!r} must be a number ≥ 0, in nats per target.")
        self.monitor = monitor
        self.tolerance = float(tolerance)
        self.patience = whole(patience, "patience", "a number of epochs", 1)
        if event_size is not None:
            event_size = whole(event_size, "event_size", "the number of targets", 1)
        self.event_size = event_size
        self.parted_at: int | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Reset the state of the previous run."""
        self._targets = self.event_size or find_head(self.model, None, _NAME).event_size
        self._best = (math.inf, math.inf, 0)  # validation, training, epoch
        self._wait = 0
        self._watched = False
        self.parted_at = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare this epoch with the best one."""
        logs = logs or {}
        if self.monitor not in logs or f"val_{self.monitor}" not in logs:
            return  # an epoch without validation
        self._watched = True
        train, val = float(logs[self.monitor]), float(logs[f"val_{self.monitor}"])
        best_val, best_train, best_epoch = self._best
        if val < best_val:
            self._best, self._wait = (val, train, epoch), 0
            return
        parted = val - best_val > self.tolerance * self._targets and train < best_train
        self._wait = self._wait + 1 if parted else 0
        if self._wait == self.patience and self.parted_at is None:
            self.parted_at = best_epoch
            warnings.warn(self._explain(epoch, train, val), OverfittingWarning, stacklevel=2)

    def on_train_end(self, logs: Any = None) -> None:
        """Warn if there was nothing to monitor."""
        if not self._watched:
            warnings.warn(
                f"WarnOnOverfitting found no {self.monitor!r} and 'val_{self.monitor}' in the logs,"
                " so it monitored nothing. Pass validation_data or validation_split to fit.",
                UserWarning,
                stacklevel=2,
            )

    def _explain(self, epoch: int, train: float, val: float) -> str:
        best_val, best_train, best_epoch = self._best
        lost = (val - best_val) / self._targets
        return (
            f"The model overfits: since epoch {best_epoch + 1}, val_{self.monitor} rose from "
            f"{best_val:.4g} to {val:.4g} (epoch {epoch + 1}: {lost:.3g} nats per target) while "
            f"{self.monitor} fell from {best_train:.4g} to {train:.4g}. With few rows, the "
            "covariance is the usual cause. Remedies, most effective first:\n"
            "  * stop at the best epoch: keras.callbacks.EarlyStopping("
            f"'val_{self.monitor}', mode='min', patience=20, restore_best_weights=True);\n"
            "  * shrink the covariance toward the one that adapt measured (with a penalty);\n"
            "  * use a simpler covariance ('diagonal'), a smaller network, or more rows."
        )


_NAME = "WarnOnOverfitting"
