"""A warning when the covariance overfits, which the training loss does not show."""

from __future__ import annotations

import math
import warnings
from typing import Any, final

import keras

from keras_mvn._core.checks import whole
from keras_mvn.callbacks._training import find_head

__all__ = ["OverfittingWarning", "WarnOnOverfitting"]


class OverfittingWarning(UserWarning):
    """Validation likelihood is getting worse while training likelihood gets better."""


@final
class WarnOnOverfitting(keras.callbacks.Callback):
    """Warn once when validation NLL parts from training NLL.

    A covariance that overfits grows certain of residuals it has memorized: the training loss
    falls steadily while new rows become impossible, by hundreds of nats on small tables. The
    warning comes when, for `patience` epochs on end,

        val(e) − val(b) > tolerance · d   and   train(e) < train(b),

    b the epoch of the lowest validation loss so far, d the number of targets. Differences are
    taken on one validation set, so its size hardly matters; a single bad epoch does not warn.

    Args:
        monitor: name in the logs; "loss" includes penalties, a metric such as
            "negative_log_likelihood" does not.
        tolerance: nats per target that validation may lose.
        patience: epochs on end.
        event_size: d; None asks the model's head.

    Raises:
        ValueError: a negative tolerance, patience < 1; in `fit`, no head and no event_size.

    Warns:
        OverfittingWarning: once per `fit`; `parted_at` is b, None before. Also if `fit` had no
            validation data, and so nothing was watched.

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
            raise ValueError(f"tolerance={tolerance!r} must be nats per target, a number ≥ 0.")
        self.monitor = monitor
        self.tolerance = float(tolerance)
        self.patience = whole(patience, "patience", "a number of epochs", 1)
        if event_size is not None:
            event_size = whole(event_size, "event_size", "the number of targets", 1)
        self.event_size = event_size
        self.parted_at: int | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Forget the last run."""
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
        """Say so if there was nothing to watch."""
        if not self._watched:
            warnings.warn(
                f"WarnOnOverfitting saw no {self.monitor!r} and 'val_{self.monitor}' in the logs, "
                "so it watched nothing. Pass validation_data or validation_split to fit.",
                UserWarning,
                stacklevel=2,
            )

    def _explain(self, epoch: int, train: float, val: float) -> str:
        best_val, best_train, best_epoch = self._best
        lost = (val - best_val) / self._targets
        return (
            f"The model overfits: since epoch {best_epoch + 1}, val_{self.monitor} rose from "
            f"{best_val:.4g} to {val:.4g} (epoch {epoch + 1}: {lost:.3g} nats per target) while "
            f"{self.monitor} fell from {best_train:.4g} to {train:.4g}. With few rows it is mostly "
            "the covariance. In order of effect:\n"
            "  * stop at the best epoch: keras.callbacks.EarlyStopping("
            f"'val_{self.monitor}', mode='min', patience=20, restore_best_weights=True);\n"
            "  * shrink the covariance towards what adapt measured (a penalty on the covariance);\n"
            "  * a simpler covariance ('diagonal'), a smaller network, or more rows."
        )


_NAME = "WarnOnOverfitting"
