"""Training on the arrays of a table: the estimator, with a progress bar, and its result."""

from __future__ import annotations

import functools
import itertools
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn._training import candidates as _candidates
from keras_mvn._training.callbacks import EpochProgress
from keras_mvn._training.candidates import Candidate
from keras_mvn._training.member import Center, Member, members_of
from keras_mvn.calibration import Recalibration
from keras_mvn.covariances import Covariance
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.estimator._mean import Fitted
from keras_mvn.estimator._rows import OutlyingValuesWarning
from keras_mvn.layers import PeriodicEmbedding
from keras_mvn.layers._find_heads import heads
from keras_mvn.tables import Split
from keras_mvn_cli._console import Output
from keras_mvn_cli._structures import structure_of

__all__ = [
    "Arrays",
    "Network",
    "Settings",
    "compared_in_words",
    "label_of",
    "reuse",
    "train",
    "warnings_said",
]


@final
@dataclass(frozen=True)
class Arrays:
    """A prepared table: arrays on disk, and the split of their rows."""

    x: Any
    y: Any
    split: Split
    targets: tuple[str, ...]
    folds: int = 0
    """Number of folds of the training rows; 0 for rows that are held out."""
    together: np.ndarray | None = None
    """Labels of the rows: equal ones are in the same fold."""

    @property
    def selecting(self) -> str:
        """The part of the split on whose rows candidates are compared."""
        return "train" if self.folds else "validation"

    def named(self) -> Any:
        """Return the targets as a data frame, uncopied, so that error messages name them."""
        pandas = require("pandas", "keras-mvn fit")
        return pandas.DataFrame(self.y, columns=list(self.targets), copy=False)

    def targets_in_a_row(self, part: str) -> float:
        """Return the mean number of observed targets per row in a part of the split."""
        y = self.y[getattr(self.split, part)]
        return float(np.count_nonzero(~np.isnan(y)) / max(1, len(y)))

    @classmethod
    def open(
        cls,
        folder: Path,
        split: Split,
        targets: Sequence[str],
        folds: int = 0,
        together: np.ndarray | None = None,
    ) -> Arrays:
        """Open what `tables.write_arrays` wrote, without reading it into memory."""
        x, y = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("X", "y"))
        return cls(x, y, split, tuple(targets), folds, together)


@final
@dataclass(frozen=True)
class Settings:
    """Settings of a network and its training, with the command line's names and units."""

    covariance: str | Covariance
    """A structure, or its name on the command line."""
    calibration: str | None
    seed: int
    constant: str | None = None
    members: int = 1
    time_budget: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters of `MultivariateNormalRegressor`."""


class Network(NamedTuple):
    """The result of training."""

    members: list[Any]
    calibration: Recalibration | None
    histories: list[dict[str, list[float]]]
    selection: list[dict[str, Any]]
    """Structures tried for "auto"."""
    interrupted: bool
    means: Sequence[Fitted] = ()
    """Regressors of each fold whose predictions the networks correct."""
    given_mean: str | None = None
    """The regressor that was asked for; None for networks alone, or a choice."""
    over: Sequence[str | None] = ()
    """The name of what each network is over, None for nothing; () if there are no regressors."""
    weights: Sequence[float] = ()
    """Weights of the networks; () for equal ones."""
    centers: Sequence[Center | None] = ()
    """What network i is over, at i modulo their number."""

    @property
    def predicting(self) -> list[Member]:
        """What predicts: the networks, over the regressors if there are any."""
        return members_of(self.members, self.centers, self.weights)

    @property
    def tails(self) -> str:
        """The tails of its predictions: "normal" or "t"."""
        return "normal" if heads(self.members[0])[-1].degrees_of_freedom is None else "t"

    @property
    def like_its_networks(self) -> dict[str, Any]:
        """Parameters of networks that differ from the best of these in their covariance alone."""
        best = next((one for one in self.selection if one["epochs"]), None)
        if best is not None:
            mean = best["mean"] or self.given_mean
            same = {"tails": best["tails"], "embedding": best["embedding"], "mean": mean}
            return {**same, "n_components": 1}
        layers = self.members[0].layers
        embedded = any(isinstance(one, PeriodicEmbedding) for one in layers)
        embedding = "periodic" if embedded else None
        same = {"tails": self.tails, "embedding": embedding, "mean": self.given_mean}
        return {**same, "n_components": 1}

    @property
    def means_used(self) -> list[str]:
        """Names of the regressors that some of the networks are over."""
        return list(dict.fromkeys(name for name in self.over if name))

    @property
    def event_size(self) -> int:
        """The number of targets."""
        return heads(self.members[0])[-1].event_size

    @property
    def degrees_of_freedom(self) -> float:
        """Their degrees of freedom, the harmonic mean of those of its networks."""
        nu = [heads(member)[-1].mean_degrees_of_freedom for member in self.members]
        return 1.0 / float(np.mean(1.0 / np.array(nu)))

    @property
    def resolution(self) -> Array:
        """The width δ of the cells of each target, 0 where values do not repeat: (d,)."""
        return heads(self.members[0])[-1].resolution

    @property
    def structure(self) -> str:
        """The covariance structure, in words."""
        head = heads(self.members[0])[-1]
        constant = {"covariance": ", the same for all rows", "shape": ", constant correlations"}
        mixed = sum(one["weight"] > 0.0 for one in self.selection)
        if mixed > 1:
            return f"{head.covariance.name}, a mixture of {mixed} candidates"
        components = head.each_component()
        several = f", mixtures of {len(components)}" if len(components) > 1 else ""
        return f"{head.covariance.name}{constant.get(components[0].constant or '', '')}{several}"


def label_of(candidate: Mapping[str, Any]) -> str:
    """Return the name of one entry of the selection, with its tails unless they are normal."""
    tails, embedding = candidate.get("tails", "normal"), candidate.get("embedding")
    n = candidate.get("n_components", 1)  # none before there were mixtures
    return _candidates.label_of(candidate["name"], tails, embedding, candidate.get("mean"), n)


def compared_in_words(candidate: Mapping[str, Any], targets: float) -> str:
    """Return the name of an entry of the selection, its NLL per target, and its share if mixed."""
    share = candidate.get("weight", 0.0)
    mixed = f" (weight {share:.0%})" if 0.0 < share < 1.0 else ""
    return f"{label_of(candidate)} {candidate['validation_nll'] / targets:.3f}{mixed}"


def train(settings: Settings, arrays: Arrays, folder: Path, output: Output, what: str) -> Network:
    """Train, select and recalibrate; continue where an earlier process was killed.

    Args:
        settings: settings of the network and its training.
        arrays: the table to train on.
        folder: Path for the files needed to resume.
        output: receives progress updates.
        what: str, name of what is trained, for the progress bar.

    Raises:
        KeyboardInterrupt: ^C came before there was anything worth keeping.

    """
    estimator = MultivariateNormalRegressor(
        _structure(settings.covariance),
        constant=settings.constant,
        n_members=settings.members,
        calibration=settings.calibration,
        cv=arrays.folds or None,
        time_budget=settings.time_budget,
        random_state=settings.seed,
        **settings.options,
    )
    parts = ("train",) if arrays.folds else ("train", "validation", "calibration")
    rows = {name: getattr(arrays.split, name) for name in parts}
    epochs = int(settings.options.get("epochs", estimator.epochs))
    with output.progress(f"training {what}", total=epochs) as progress, warnings_said(output):
        try:
            estimator.fit(
                arrays.x,
                arrays.named(),
                split=rows,
                groups=arrays.together,
                backup_dir=folder,
                callbacks=functools.partial(_Progress, progress, output),
            )
        except KeyboardInterrupt:
            if not getattr(estimator, "interrupted_", False):
                raise
    alone = hasattr(estimator, "model_")
    members = [estimator.model_] if alone else estimator.ensemble_.members
    for member in members:
        heads(member)[-1].target_names = arrays.targets
    histories = estimator.history_
    given = None if estimator.mean in (None, "auto") else str(estimator.mean)
    return Network(
        list(members),
        estimator.calibration_,
        [histories] if alone else histories,
        getattr(estimator, "selection_", []),
        estimator.interrupted_,
        estimator.means_,
        given,
        [name or given for name in estimator._over],
        estimator.weights_.tolist(),
        estimator._centers,
    )


def _structure(covariance: str | Covariance) -> str | Covariance:
    return structure_of(covariance) if isinstance(covariance, str) else covariance


def reuse(selection: Path, candidate: Candidate, folder: Path) -> None:
    """Reuse, for a baseline, the networks trained when the structures were compared."""
    if folder.exists():
        return
    for member in itertools.count():
        trained = selection / candidate.folder(member)
        if not trained.is_dir():
            break
        shutil.copytree(trained, folder / f"member_{member}")


class _Progress(EpochProgress):
    """Updater of the progress bar, which also reports where a resumed training starts."""

    def __init__(self, progress: Callable[..., None], output: Output) -> None:
        super().__init__()
        self._progress, self._output, self._began = progress, output, False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Report the first epoch of a resumed training."""
        if not self._began and epoch > 0:
            self._output.say(f"resuming at epoch {epoch + 1}")
        self._began = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show the validation loss."""
        loss = (logs or {}).get("val_loss", np.nan)
        self._progress(epoch + 1, f"epoch {epoch + 1}, validation loss {loss:.3f}")


_OPTIONS = {
    "calibration=": "--calibration ",
    "Pass more rows, a larger calibration_fraction, or another": "More rows mend it, or another",
    "calibration (None for no calibration)": "--calibration (none trains on these rows instead)",
}
"""Words of the estimator's warnings → words of the command."""


@contextmanager
def warnings_said(output: Output) -> Iterator[None]:
    """Print warnings as notes among the other messages."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("ignore", OutlyingValuesWarning)  # told by line and column before
        try:
            yield
        finally:
            texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
            for text in texts:
                for of_python, of_command in _OPTIONS.items():
                    text = text.replace(of_python, of_command)
                output.note(text)
