"""All networks of one fit: structures to choose from, then the members of an ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn import covariances
from keras_mvn._core.interrupts import Interruption
from keras_mvn._core.types import Array
from keras_mvn._training.data import Table
from keras_mvn._training.one_pass import train_in_one_pass
from keras_mvn._training.prediction import predict
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.train import Trained, train
from keras_mvn.covariances import Covariance
from keras_mvn.layers import MultivariateNormalHead

__all__ = [
    "Candidate",
    "Fitter",
    "Tried",
    "candidates",
    "constant_covariance",
    "independent",
    "subsample",
]

DENSE_UP_TO = 100
"""Targets, above which d(d + 1)/2 numbers a row are too many (docs/choosing.md)."""

LOW_RANK_FROM = 20
"""Targets, below which a low rank saves nothing."""

NUMBERS_AT_ONCE = 20_000_000
"""Of predictions for held-out rows: 160 MB."""


class Candidate(NamedTuple):
    """A structure and what of it does not depend on x."""

    name: str
    covariance: Covariance
    constant: str | None

    @property
    def folder(self) -> str:
        """Name of the folder of its network, when structures are compared."""
        return f"{self.name.replace(' ', '_')}-member_0"


def independent() -> Candidate:
    """Targets that do not move together."""
    return Candidate("diagonal", covariances.Diagonal(), None)


def constant_covariance(event_size: int) -> Candidate:
    """The same covariance for all rows, a full one; of one target that is its variance."""
    one = event_size == 1
    full: Covariance = covariances.Diagonal() if one else covariances.Cholesky()
    return Candidate("constant covariance", full, "covariance")


def candidates(event_size: int) -> list[Candidate]:
    """What "auto" tries for d targets, the likeliest first: the time may not suffice for all."""
    if event_size == 1:
        return [independent(), constant_covariance(event_size)]
    found = [independent()]
    if event_size >= LOW_RANK_FROM:
        rank = min(10, event_size // 4)
        found.insert(0, Candidate("low_rank", covariances.LowRank(rank=rank), None))
    if event_size <= DENSE_UP_TO:
        full = covariances.Cholesky()
        found = [
            Candidate("cholesky", full, None),
            Candidate("constant shape", full, "shape"),
            *found,
            Candidate("precision_cholesky", covariances.PrecisionCholesky(), None),
            constant_covariance(event_size),
        ]
    return found


class Tried(NamedTuple):
    """A candidate that was trained."""

    candidate: Candidate
    validation_nll: float
    recipe: Recipe
    trained: Trained

    def summary(self) -> dict[str, Any]:
        """For people."""
        return {
            **self.candidate._asdict(),
            "validation_nll": self.validation_nll,
            "epochs": self.trained.epochs,
            "seconds": self.trained.seconds,
        }


@final
class Fitter:
    """Trains networks on the same rows.

    Args:
        training: rows to learn from.
        validation: rows for early stopping and selection, or None.
        seed: of all networks.
        residuals: as `MultivariateNormalHead.adapt` takes them.
        target_names: d names.
        callbacks: a function that makes callbacks.
        folder: of files to go on from, one folder for each network.
        time_budget: seconds for all of them.
        interruption: whether ^C was pressed; training then ends after the step it is in.
        verbose: 0, 1 a line for each network, 2 one for each epoch.

    Attributes:
        interrupted: whether ^C ended training.

    """

    def __init__(
        self,
        training: Table,
        validation: Table | None,
        seed: int,
        *,
        residuals: Array | None = None,
        target_names: tuple[str, ...] | None = None,
        callbacks: Callable[[], Any] | None = None,
        folder: Path | None = None,
        time_budget: float | None = None,
        interruption: Interruption | None = None,
        verbose: int = 0,
    ) -> None:
        self._training, self._validation, self._seed = training, validation, seed
        self._residuals, self._names, self._callbacks = residuals, target_names, callbacks
        self._folder, self._verbose = folder, verbose
        self._interruption = interruption or Interruption()
        self._ends = None if time_budget is None else time.monotonic() + time_budget
        self.interrupted = False

    def members(self, recipe: Recipe, n: int, first: Trained | None = None) -> list[Trained]:
        """n networks, the first of which may be there already; on JAX in one pass, if possible.

        Fewer after ^C: one that was cut short is left out, unless it is the only one.
        """
        trained = [] if first is None else [first]
        while self._began(len(trained)) and self._one_more(recipe, n, trained):
            pass
        trained.extend(self._at_once(recipe, range(len(trained), n), bool(trained)))
        while self._one_more(recipe, n, trained):
            pass
        return trained

    def _began(self, member: int) -> bool:
        """Whether a process that trained this network alone has left something."""
        return self._folder is not None and (self._folder / f"member_{member}").exists()

    def _one_more(self, recipe: Recipe, n: int, trained: list[Trained]) -> bool:
        """Train one network after those that are there; False where there is no more to do."""
        i = len(trained)
        if i >= n or (trained and self.interrupted):
            return False
        one = self._train_unless_interrupted(recipe, i, f"member_{i}", n - i, bool(trained))
        if one is None or (trained and one.interrupted):
            return False
        trained.append(one)
        self._say(f"network {i + 1} of {n}: {one.summary()}")
        return True

    def _at_once(self, recipe: Recipe, members: range, expendable: bool) -> list[Trained]:
        """Train these networks in one pass; nothing where they have to be trained in turn."""
        in_turn = self.interrupted or self._verbose >= 2 or any(map(self._began, members))
        if in_turn or len(members) < 2:
            return []
        folders = [] if self._folder is None else [self._folder / f"member_{i}" for i in members]
        try:
            trained = train_in_one_pass(
                recipe,
                self._training,
                self._validation,
                [self._seed_of(i) for i in members],
                residuals=self._residuals,
                target_names=self._names,
                callbacks=self._callbacks,
                deadline=self._ends,
                backup_dirs=folders,
                interruption=self._interruption,
            )
        except KeyboardInterrupt:
            self.interrupted = True
            if not expendable:
                raise
            return []
        if trained is None:
            return []
        self.interrupted = self._interruption.requested
        for i, one in zip(members, trained, strict=True):
            self._say(f"network {i + 1} of {members.stop}: {one.summary()}")
        return trained

    def select(self, recipe: Recipe, others: int) -> list[Tried]:
        """A network for every candidate, the best on the validation rows first.

        Args:
            recipe: its structure is replaced.
            others: how many networks are to be trained afterwards, in the same time.

        Raises:
            ValueError: there are no validation rows.

        """
        if self._validation is None:
            raise ValueError(
                "covariance='auto' chooses on validation rows; there are none. Use "
                "validation_fraction > 0, or name a structure."
            )
        tried: list[Tried] = []
        choices = candidates(self._training.y.shape[1])
        for i, choice in enumerate(choices):
            late = self._ends is not None and time.monotonic() > self._ends
            if tried and (self.interrupted or late):
                break
            own = replace(recipe, covariance=choice.covariance, constant=choice.constant)
            left = len(choices) - i + others
            trained = self._train_unless_interrupted(own, 0, choice.folder, left, bool(tried))
            if trained is None:
                break
            nll = _mean_nll(trained, self._validation)
            tried.append(Tried(choice, nll, own, trained))
            self._say(f"{choice.name}: validation NLL {nll:.4f}, {trained.summary()}")
        return sorted(tried, key=lambda one: np.inf if np.isnan(one[1]) else one[1])

    def _train_unless_interrupted(
        self, recipe: Recipe, member: int, folder: str, left: int, expendable: bool
    ) -> Trained | None:
        """As `_train`; None after ^C before the first epoch was over, where others are there."""
        try:
            trained = self._train(recipe, member, folder, left)
        except KeyboardInterrupt:
            self.interrupted = True
            if not expendable:
                raise
            return None
        self.interrupted = trained.interrupted or self._interruption.requested
        return trained

    def _train(self, recipe: Recipe, member: int, folder: str, left: int) -> Trained:
        """One network, in its share of the time that is left for so many."""
        now = time.monotonic()
        return train(
            recipe,
            self._training,
            self._validation,
            self._seed_of(member),
            residuals=self._residuals,
            target_names=self._names,
            callbacks=self._callbacks,
            deadline=None if self._ends is None else now + max(self._ends - now, 0.0) / left,
            backup_dir=None if self._folder is None else self._folder / folder,
            interruption=self._interruption,
            verbose=2 if self._verbose >= 2 else 0,
        )

    def _seed_of(self, member: int) -> int:
        return int(np.random.SeedSequence([self._seed, 2, member]).generate_state(1)[0])

    def _say(self, line: str) -> None:
        if self._verbose:
            print(line, flush=True)


def _mean_nll(trained: Trained, table: Table) -> float:
    rows = subsample(table.rows, trained.head)
    y_pred = predict(trained.model, np.asarray(table.x[rows]))
    y = np.asarray(table.y[rows], np.float64)
    log_prob = trained.head.distribution(y_pred).log_prob(y, "marginalize")
    weights = None if table.weight is None else table.weight[rows]
    return float(-np.average(log_prob, weights=weights))


def subsample(rows: np.ndarray, head: MultivariateNormalHead) -> np.ndarray:
    """A subset of rows small enough that their predictions fit in memory."""
    width = head.covariance.packed_size(head.event_size)
    return rows[:: max(1, -(-len(rows) * width // NUMBERS_AT_ONCE))]
