"""Training all networks of one fit: candidates to select from, then members of an ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

from keras_mvn._core.interrupts import Interruption
from keras_mvn._training.candidates import Candidate
from keras_mvn._training.constant_errors import constant_errors, recipe_of_constant_errors
from keras_mvn._training.data import Material, Part
from keras_mvn._training.deadline import Deadline
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.scoring import Scored, scored
from keras_mvn._training.stacking import Stacked, stacked
from keras_mvn._training.train import Trained, train
from keras_mvn._training.train_at_once import train_in_one_pass
from keras_mvn._training.tried import Tried, best_first

__all__ = [
    "Fitter",
    "Regressors",
]

NO_NETWORK = "no network"
"""Name of candidates that are a regressor with one covariance of its errors."""

SHARE_OF_REGRESSORS = 0.25
"""Share of the time left within which other regressors can be fitted."""


class Regressors(Protocol):
    """What fits other regressors, over whose predictions networks may be trained."""

    def others(self, ends: float | None) -> dict[str, Material]:
        """Fit them, in the time there is; return the rows beside the predictions of each."""
        ...

    def over(self, name: str) -> Material:
        """Return the rows for networks over one of them."""
        ...


@final
@dataclass(frozen=True)
class _Order:
    """Networks of one recipe that are to be trained."""

    recipe: Recipe
    which: range
    """Their numbers."""
    names: Sequence[str]
    """The name of each network's backup, by its number."""
    left: int
    """How many networks, including these, share the time that is left."""
    expendable: bool
    """Whether there are networks without these."""
    rival: Tried | None = None
    """The best candidate so far, if these are of another one."""
    told: bool = False
    """Whether each is worth a line."""
    ends: Deadline | None = None
    """When they have had their share of the time."""

    def after(self, trained: int) -> _Order:
        """Return what is left of the order once so many have been trained."""
        return replace(
            self,
            which=self.which[trained:],
            left=self.left - trained,
            expendable=self.expendable or trained > 0,
        )


@final
class Fitter:
    """Trains the networks of one fit.

    Without cross-fitting, all have the same rows. With it, there is a part for each fold, and
    network i has the rows of part i modulo their number.

    Args:
        material: the rows of the networks.
        seed: seed of all networks.
        regressors: what fits other regressors; None for nothing.
        target_names: d names.
        callbacks: function that returns new callbacks.
        folder: folder for backups, with a subfolder for each network; None for no backups.
        ends: `time.monotonic()` at which training ends, or None.
        interruption: whether ^C was pressed; training then ends after the current step.
        verbose: 0 for nothing, 1 for a line per network, 2 for a line per epoch.

    Attributes:
        interrupted: whether ^C ended training.

    """

    def __init__(
        self,
        material: Material,
        seed: int,
        *,
        regressors: Regressors | None = None,
        target_names: tuple[str, ...] | None = None,
        callbacks: Callable[[], Any] | None = None,
        folder: Path | None = None,
        ends: float | None = None,
        interruption: Interruption | None = None,
        verbose: int = 0,
    ) -> None:
        self._materials: dict[str | None, Material] = {None: material}
        self._regressors, self._seed = regressors, seed
        self._names, self._callbacks = target_names, callbacks
        self._folder, self._verbose = folder, verbose
        self._interruption = interruption or Interruption()
        self._ends = ends
        self.interrupted = False

    def members(self, recipe: Recipe, n: int, first: Sequence[Trained] = ()) -> list[Trained]:
        """Train n networks, or those that are missing if the first are given.

        After ^C there are fewer: a network that was cut short is left out, unless it is the only
        one.
        """
        names, which = [f"member_{i}" for i in range(n)], range(len(first), n)
        order = _Order(recipe, which, names, len(which), expendable=bool(first), told=True)
        return [*first, *self._networks(order)]

    @property
    def event_size(self) -> int:
        """The number of targets."""
        return int(self._of(None).parts[0].training.y.shape[1])

    @property
    def numbers(self) -> int:
        """The number of inputs that have more than two values."""
        return int(np.count_nonzero(~self._of(None).inputs.binary))

    @property
    def rows(self) -> int:
        """The number of rows that the first network learns from."""
        return len(self._of(None).parts[0].training)

    @property
    def size(self) -> int:
        """The size of the table of one network: (rows + 1000) × inputs × targets."""
        inputs = int(self._of(None).parts[0].training.x.shape[1])
        return (self.rows + 1000) * inputs * self.event_size

    @property
    def smallest_ensemble(self) -> int:
        """The number of networks of which each has other rows."""
        return len(self._of(None).parts)

    @property
    def can_select(self) -> bool:
        """Whether there are held-out rows, on which candidates are compared."""
        return self._of(None).parts[0].held_out is not None

    @property
    def over_a_regressor(self) -> bool:
        """Whether the first rows are beside the predictions of a regressor."""
        return self._of(None).parts[0].training.measured is not None

    def regressors_alone(self, recipe: Recipe, names: Sequence[str | None]) -> list[Tried]:
        """Return candidates without a network: regressors with one covariance of their errors.

        Args:
            recipe: recipe whose structure and tails they have.
            names: of regressors from `other_regressors`; None for that of the first rows.

        """
        return [self._alone(replace(recipe, mean=name)) for name in names]

    def _alone(self, recipe: Recipe) -> Tried:
        own = recipe_of_constant_errors(recipe)
        material = self._of(recipe.mean)
        trained = [
            constant_errors(own, part, material.inputs, self._seed_of(i), self._names)
            for i, part in enumerate(material.parts)
        ]
        candidate = Candidate(
            NO_NETWORK, own.covariance, own.constant, tails=own.tails, mean=own.mean
        )
        tried = self._tried(candidate, own, trained, None)
        self._say(f"{tried.candidate.label}: validation NLL {tried.validation_nll:.4f}")
        return tried

    def other_regressors(self) -> list[str]:
        """Fit other regressors; return the names of those for which there was time."""
        if self._regressors is None or self.interrupted:
            return []
        now = time.monotonic()
        share = None if self._ends is None else now + SHARE_OF_REGRESSORS * (self._ends - now)
        found = self._regressors.others(share)
        if not found:
            self._say("over other regressors: not tried, as there is too little time")
        self._materials.update(found)
        return list(found)

    def prepare_networks_over(self, name: str) -> None:
        """Get the rows for networks over a regressor, with errors from which they start."""
        assert self._regressors is not None
        self._materials[name] = self._regressors.over(name)

    def stacked(self, tried: Sequence[Tried]) -> Stacked:
        """Return candidates with the weights of the mixture that predicts best, and its score."""
        if self.interrupted:
            alone = [tried[0]._replace(weight=1.0), *tried[1:]]
            return Stacked(alone, tried[0].validation_nll)
        found, score = stacked(tried, [self._of(one.recipe.mean).parts for one in tried])
        some = [f"{one.weight:.2g} of {one.candidate.label}" for one in found if one.weight]
        if len(some) > 1:
            self._say(f"mixture: {', '.join(some)}")
        return Stacked(found, score)

    def select(
        self,
        recipe: Recipe,
        choices: Sequence[Candidate],
        others: int,
        earlier: Sequence[Tried] = (),
    ) -> list[Tried]:
        """Train the networks of each candidate; return the best on the held-out rows first.

        Args:
            recipe: recipe whose structure and tails are replaced.
            choices: the candidates, the most promising first.
            others: number of networks to be trained afterwards, in the same time budget.
            earlier: candidates that were trained before, which are compared, too.

        Raises:
            ValueError: there are no held-out rows.

        """
        if not self.can_select:
            raise ValueError(
                "covariance='auto' selects a structure on validation rows, but there are none. Use "
                "validation_fraction > 0, or choose a structure."
            )
        tried, n = list(earlier), self.smallest_ensemble
        for i, choice in enumerate(choices):
            if tried and (self.interrupted or self._too_late(tried)):
                break
            own = replace(
                recipe,
                covariance=choice.covariance,
                constant=choice.constant,
                tails=choice.tails,
                embedding=choice.embedding,
                mean=choice.mean,
                n_components=choice.n_components,
            )
            left = n * (len(choices) - i) + others
            names = [choice.folder(member) for member in range(n)]
            best = best_first(tried)[0] if tried else None
            order = _Order(own, range(n), names, left, best is not None, best)
            trained = self._networks(order)
            if best is not None and (not trained or (self.interrupted and len(trained) < n)):
                break
            tried.append(self._tried(choice, own, trained, best))
            nll = tried[-1].validation_nll
            self._say(f"{choice.label}: validation NLL {nll:.4f}, {_summary(trained)}")
        return best_first(tried)

    def _tried(
        self, candidate: Candidate, recipe: Recipe, trained: list[Trained], best: Tried | None
    ) -> Tried:
        found = scored(trained, self._of(recipe.mean).parts)
        nll = found.mean
        if best is not None and len(found.scores) < len(best.scored.scores):
            nll += best.validation_nll - best.scored.first(len(found.scores)).mean
        return Tried(candidate, nll, recipe, trained, found)

    # --- networks of one recipe ------------------------------------------------------------------

    def _networks(self, order: _Order) -> list[Trained]:
        """Train the networks of an order, on JAX in one pass, if possible."""
        trained: list[Trained] = []
        judged: list[Scored] = []
        order = replace(order, ends=self._end_of(order))

        def next_in_turn() -> bool:
            rest = order.after(len(trained))
            if not rest.which or (rest.expendable and self.interrupted):
                return False
            one = self._in_turn(rest)
            if one is None or (rest.expendable and one.interrupted):
                return False
            trained.append(one)
            self._tell(rest, rest.which[0], one)
            return not self._given_up(order, trained, judged)

        while self._began(order.after(len(trained)).which[:1], order):
            if not next_in_turn():
                return trained
        trained.extend(self._at_once(order.after(len(trained))))
        while next_in_turn():
            pass
        return trained

    def _given_up(self, order: _Order, trained: Sequence[Trained], judged: list[Scored]) -> bool:
        """Whether the networks so far are clearly worse than the same ones of another candidate.

        `judged` holds the scores of those that were asked about before, and gets the others'.
        """
        if order.rival is None or len(trained) == len(order.which):
            return False
        for i in range(len(judged), len(trained)):
            judged.append(scored([trained[i]], [self._part(order.recipe, i)]))
        return Scored.joined(judged).clearly_worse(order.rival.scored)

    def _began(self, which: range, order: _Order) -> bool:
        """Whether an earlier process has left a backup of one of these, trained on its own."""
        folder = self._folder
        return folder is not None and any((folder / order.names[i]).exists() for i in which)

    def _at_once(self, order: _Order) -> list[Trained]:
        """Train the networks in one pass; return [] if they have to be trained in turn."""
        which = order.which
        in_turn = self.interrupted or self._verbose >= 2 or self._began(which, order)
        if in_turn or len(which) < 2:
            return []
        folders = [] if self._folder is None else [self._folder / order.names[i] for i in which]
        try:
            trained = train_in_one_pass(
                order.recipe,
                [self._part(order.recipe, i) for i in which],
                self._of(order.recipe.mean).inputs,
                [self._seed_of(i) for i in which],
                target_names=self._names,
                callbacks=self._callbacks,
                deadline=order.ends,
                backup_dirs=folders,
                interruption=self._interruption,
            )
        except KeyboardInterrupt:
            self.interrupted = True
            if not order.expendable:
                raise
            return []
        if trained is None:
            return []
        self.interrupted = self._interruption.requested
        for i, one in zip(which, trained, strict=True):
            self._tell(order, i, one)
        return trained

    def _in_turn(self, order: _Order) -> Trained | None:
        """Train the first network; return None if ^C ended its first epoch and it is expendable."""
        i = order.which[0]
        try:
            trained = train(
                order.recipe,
                self._part(order.recipe, i),
                self._of(order.recipe.mean).inputs,
                self._seed_of(i),
                target_names=self._names,
                callbacks=self._callbacks,
                deadline=None if order.ends is None else order.ends.divided(len(order.which)),
                backup_dir=None if self._folder is None else self._folder / order.names[i],
                interruption=self._interruption,
                verbose=2 if self._verbose >= 2 else 0,
            )
        except KeyboardInterrupt:
            self.interrupted = True
            if not order.expendable:
                raise
            return None
        self.interrupted = trained.interrupted or self._interruption.requested
        return trained

    def _part(self, recipe: Recipe, member: int) -> Part:
        parts = self._of(recipe.mean).parts
        return parts[member % len(parts)]

    def _of(self, mean: str | None) -> Material:
        return self._materials[mean]

    def _end_of(self, order: _Order) -> Deadline | None:
        """Return when the networks of an order have had their share of the time, half or more.

        Half, since the most promising candidate comes first, and is better trained for longer than
        compared with others that were hardly trained. For the same reason, the first one may take
        all of the time for its first epochs.
        """
        if self._ends is None:
            return None
        now = time.monotonic()
        share = max(len(order.which) / max(order.left, 1), 0.5)
        ends = now + max(self._ends - now, 0.0) * share
        return Deadline(ends, self._ends if order.rival is None else ends)

    def _too_late(self, tried: Sequence[Tried]) -> bool:
        """Whether a further candidate would have less than half of the time of an earlier one."""
        longest = max(sum(one.seconds for one in candidate.trained) for candidate in tried)
        return self._ends is not None and self._ends - time.monotonic() < 0.5 * longest

    def _seed_of(self, member: int) -> int:
        return int(np.random.SeedSequence([self._seed, 2, member]).generate_state(1)[0])

    def _tell(self, order: _Order, member: int, trained: Trained) -> None:
        if order.told:
            self._say(f"network {member + 1} of {order.which.stop}: {trained.summary()}")

    def _say(self, line: str) -> None:
        if self._verbose:
            print(line, flush=True)


def _summary(trained: Sequence[Trained]) -> str:
    epochs, seconds = max(one.epochs for one in trained), sum(one.seconds for one in trained)
    return f"{epochs} epochs in {seconds:.0f} s"
