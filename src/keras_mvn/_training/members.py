"""Training all networks of one fit: structures to select from, then members of an ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn import covariances
from keras_mvn._core.interrupts import Interruption
from keras_mvn._core.types import Array
from keras_mvn._training.data import Table, thinned
from keras_mvn._training.prediction import predict
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.train import Trained, train
from keras_mvn._training.train_at_once import train_in_one_pass
from keras_mvn.covariances import Covariance
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.scores import cell_log_score

__all__ = [
    "Candidate",
    "Fitter",
    "Tried",
    "candidates",
    "constant_covariance",
    "independent",
    "label_of",
    "subsample",
]

DENSE_UP_TO = 100
"""Number of targets above which d(d + 1)/2 numbers per row are too many (docs/choosing.md)."""

LOW_RANK_FROM = 20
"""Number of targets below which a low rank saves nothing."""

MOST_RANGES = 20.0
"""Interquartile ranges (of at least a nat) above the third quartile to which a row's score counts.

Where errors have tails, a normal still pays for them: 20 nats are an error of six deviations.
"""

NUMBERS_AT_ONCE = 20_000_000
"""Size of predictions for held-out rows, in numbers: 160 MB."""


class Candidate(NamedTuple):
    """A covariance structure, which part of it does not depend on x, and its tails."""

    name: str
    covariance: Covariance
    constant: str | None
    tails: str = "normal"

    @property
    def label(self) -> str:
        """Its name, with its tails unless they are normal."""
        return label_of(self.name, self.tails)

    @property
    def folder(self) -> str:
        """Folder name for its network when structures are compared."""
        tails = "" if self.tails == "normal" else f"-{self.tails}"
        return f"{self.name.replace(' ', '_')}{tails}-member_0"


def label_of(name: str, tails: str) -> str:
    """Return the name of a structure, with its tails unless they are normal."""
    return name if tails == "normal" else f"{name}, {tails}"


def independent() -> Candidate:
    """Return the candidate with independent targets."""
    return Candidate("diagonal", covariances.Diagonal(), None)


def constant_covariance(event_size: int) -> Candidate:
    """Return the candidate with one full covariance (one variance if d = 1) for all rows."""
    one = event_size == 1
    full: Covariance = covariances.Diagonal() if one else covariances.Cholesky()
    return Candidate("constant covariance", full, "covariance")


def candidates(event_size: int) -> list[Candidate]:
    """Return what "auto" tries for d targets, the most promising first, as time may run out."""
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
    """A trained candidate."""

    candidate: Candidate
    validation_nll: float
    recipe: Recipe
    trained: Trained

    def summary(self) -> dict[str, Any]:
        """Return a summary for users."""
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
        training: training rows.
        validation: rows for early stopping and selection, or None.
        seed: seed of all networks.
        residuals: as in `MultivariateNormalHead.adapt`.
        target_names: d names.
        callbacks: function that returns new callbacks.
        folder: folder for backups, with a subfolder for each network; None for no backups.
        time_budget: seconds for all networks.
        interruption: whether ^C was pressed; training then ends after the current step.
        verbose: 0 for nothing, 1 for a line per network, 2 for a line per epoch.

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
        """Train n networks, or the other n − 1 if given the first; on JAX in one pass, if possible.

        After ^C there are fewer: a network that was cut short is left out, unless it is the only
        one.
        """
        trained = [] if first is None else [first]
        while self._began(len(trained)) and self._one_more(recipe, n, trained):
            pass
        trained.extend(self._at_once(recipe, range(len(trained), n), bool(trained)))
        while self._one_more(recipe, n, trained):
            pass
        return trained

    def _began(self, member: int) -> bool:
        """Whether an earlier process has left a backup of this network, trained on its own."""
        return self._folder is not None and (self._folder / f"member_{member}").exists()

    def _one_more(self, recipe: Recipe, n: int, trained: list[Trained]) -> bool:
        """Train the next network; return False if there is nothing left to do."""
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
        """Train these networks in one pass; return [] if they have to be trained in turn."""
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

    @property
    def event_size(self) -> int:
        """The number of targets."""
        return int(self._training.y.shape[1])

    @property
    def can_select(self) -> bool:
        """Whether there are validation rows, on which candidates are compared."""
        return self._validation is not None

    def select(
        self,
        recipe: Recipe,
        choices: Sequence[Candidate],
        others: int,
        earlier: Sequence[Tried] = (),
    ) -> list[Tried]:
        """Train a network for each candidate; return the best on the validation rows first.

        Args:
            recipe: recipe whose structure and tails are replaced.
            choices: the candidates, the most promising first.
            others: number of networks to be trained afterwards, in the same time budget.
            earlier: candidates that were trained before, which are compared, too.

        Raises:
            ValueError: there are no validation rows.

        """
        if self._validation is None:
            raise ValueError(
                "covariance='auto' selects a structure on validation rows, but there are none. Use "
                "validation_fraction > 0, or choose a structure."
            )
        tried = list(earlier)
        for i, choice in enumerate(choices):
            late = self._ends is not None and time.monotonic() > self._ends
            if tried and (self.interrupted or late):
                break
            own = replace(
                recipe, covariance=choice.covariance, constant=choice.constant, tails=choice.tails
            )
            left = len(choices) - i + others
            trained = self._train_unless_interrupted(own, 0, choice.folder, left, bool(tried))
            if trained is None:
                break
            nll = _mean_nll(trained, self._validation)
            tried.append(Tried(choice, nll, own, trained))
            self._say(f"{choice.label}: validation NLL {nll:.4f}, {trained.summary()}")
        return _best_first(tried)

    def _train_unless_interrupted(
        self, recipe: Recipe, member: int, folder: str, left: int, expendable: bool
    ) -> Trained | None:
        """Call `_train`; return None if ^C ended the first epoch and the network is expendable."""
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
        """Train one network, in its share of the time left for `left` networks."""
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


def _best_first(tried: Iterable[Tried]) -> list[Tried]:
    """Sort candidates by their NLL on the validation rows."""
    return sorted(
        tried, key=lambda one: np.inf if np.isnan(one.validation_nll) else one.validation_nll
    )


def _mean_nll(trained: Trained, table: Table) -> float:
    rows = subsample(table.rows, trained.head)
    y_pred = predict(trained.model, np.asarray(table.x[rows]))
    y = np.asarray(table.y[rows], np.float64)
    answer = trained.head.distribution(y_pred)
    # Where values repeat, the cells' probabilities: densities there reward scales that collapse.
    score = cell_log_score(answer, y, trained.head.resolution, "marginalize")
    weights = None if table.weight is None else table.weight[rows]
    return float(np.average(_winsorized(score), weights=weights))


def _winsorized(scores: Array) -> Array:
    """Return scores, none larger than what is far out among them: one row must not choose."""
    low, high = np.nanquantile(scores, (0.25, 0.75))
    return np.minimum(scores, high + MOST_RANGES * max(high - low, 1.0))


def subsample(rows: np.ndarray, head: MultivariateNormalHead) -> np.ndarray:
    """A subset of rows small enough that their predictions fit in memory."""
    width = head.covariance.packed_size(head.event_size)
    return thinned(rows, NUMBERS_AT_ONCE, width)
