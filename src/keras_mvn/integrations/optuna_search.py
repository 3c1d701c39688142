"""Optuna: a search space for the estimator, and early ends of trials that go nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np

from keras_mvn import covariances
from keras_mvn._core.optional import require
from keras_mvn.covariances import Covariance, LowRank

__all__ = ["pruning", "suggest"]

DENSE_UP_TO = 50
"""Number of targets up to which full covariances are among the structures."""


def suggest(trial: Any, event_size: int) -> dict[str, Any]:
    """Return parameters of `MultivariateNormalRegressor` that a trial of Optuna suggests.

    The space holds what the estimator does not choose by itself: structure, width and depth,
    dropout, learning rate and batch size. Tails, inputs, and other regressors are chosen by `fit`
    on held-out rows already, unless the parameters say otherwise.

    | parameter | values |
    | --- | --- |
    | covariance | Cholesky (up to 50 targets), diagonal, or low rank (from 3 targets) |
    | rank | of the low rank, 1 to 10, but less than the number of targets |
    | hidden | 1 to 3 layers of 16 to 256 units |
    | activation | "gelu", "silu", "relu" |
    | dropout | 0 to 0.3 |
    | learning_rate | 5e-4 to 2e-2, log-uniform |
    | batch_size | 32 to 512 |

    Args:
        trial: an `optuna.Trial`.
        event_size: d, the number of targets.

    >>> import optuna
    >>> fixed = {"structure": "cholesky", "layers": 2, "units": 64, "activation": "gelu"}
    >>> fixed |= {"dropout": 0.0, "learning_rate": 5e-3, "batch_size": 64}
    >>> suggest(optuna.trial.FixedTrial(fixed), event_size=2)["hidden"]
    (64, 64)

    """
    layers = trial.suggest_int("layers", 1, 3)
    units = trial.suggest_int("units", 16, 256, log=True)
    return {
        "covariance": _structure(trial, event_size),
        "hidden": (units,) * layers,
        "activation": trial.suggest_categorical("activation", ["gelu", "silu", "relu"]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.3),
        "learning_rate": trial.suggest_float("learning_rate", 5e-4, 2e-2, log=True),
        "batch_size": trial.suggest_int("batch_size", 32, 512, log=True),
    }


def _structure(trial: Any, event_size: int) -> Covariance:
    names = ["diagonal"]
    if 1 < event_size <= DENSE_UP_TO:
        names.append("cholesky")
    if event_size > 2:
        names.append("low_rank")
    name = trial.suggest_categorical("structure", names)
    if name == "low_rank":
        return LowRank(rank=trial.suggest_int("rank", 1, min(10, event_size - 1)))
    return covariances.get(name)


def pruning(trial: Any, monitor: str = "val_loss") -> Callable[[], list[Any]]:
    """Return what `MultivariateNormalRegressor.fit(callbacks=…)` takes, to prune a trial.

    The first network of a fit reports its validation loss after every epoch; if the study's pruner
    says so, training ends with `optuna.TrialPruned`. Other networks, of folds or candidates, do not
    report. Losses are comparable between trials with the same loss and tails.

    Args:
        trial: an `optuna.Trial`.
        monitor: what is reported, a key of the logs of `keras.Model.fit`.

    """
    require("optuna", "integrations.pruning")
    begun: list[Any] = []

    def callbacks() -> list[Any]:
        if begun:
            return []
        begun.append(_Pruning(trial, monitor))
        return begun[:1]

    return callbacks


@final
class _Pruning(keras.callbacks.Callback):
    """Reports to a trial, and ends training if the trial is to be pruned."""

    def __init__(self, trial: Any, monitor: str) -> None:
        super().__init__()
        self._trial, self._monitor = trial, monitor

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the epoch."""
        value = float((logs or {}).get(self._monitor, np.nan))
        if not np.isfinite(value):
            return
        self._trial.report(value, step=epoch)
        if self._trial.should_prune():
            optuna = require("optuna", "integrations.pruning")
            raise optuna.TrialPruned(f"{self._monitor} {value:.4g} after epoch {epoch + 1}")
