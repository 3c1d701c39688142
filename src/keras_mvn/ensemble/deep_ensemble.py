"""Deep ensembles: several networks of one kind, whose predictions are a mixture of normals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.files import read_json, replacing, write_json
from keras_mvn._core.random_state import random_state
from keras_mvn._core.version import __version__
from keras_mvn.distributions import Mixture
from keras_mvn.ensemble._job import Job
from keras_mvn.ensemble._members import checked_heads
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import output_of

__all__ = ["DeepEnsemble"]

FORMAT = 1
"""Version of the folder that `save` writes."""

INDEX = "ensemble.json"

History = dict[str, list[float]]


@final
class DeepEnsemble:
    """Networks that differ in initial weights and order of batches; they predict a mixture.

    One network says how noisy y is; how far it can itself be wrong, several networks show by
    disagreeing. Far from the training data they disagree most.

    `builder` is called once for each member, under a seed of that member's own. It must make
    everything anew: model, head, optimizer. Seeds are derived from `seed` and the member's
    number (`numpy.random.SeedSequence`), so that ensembles of neighboring seeds share no
    members. The global states of Python's `random`, NumPy and PyTorch are put back afterwards;
    TensorFlow's global seed and Keras' global generator, which cannot be read, are left set.

    Args:
        builder: takes nothing and returns a compiled Keras model with a `MultivariateNormalHead`,
            adapted to the targets. What differs between members may be its own affair.
        n_members: k ≥ 1; five are usual.
        seed: of initial weights, shuffles and dropout.

    Raises:
        TypeError: `builder` is not callable, or returns something else than a Keras model.
        ValueError: a model that is not compiled or has no head, members that share trained
            variables, or whose heads differ.

    Source: Lakshminarayanan, Pritzel & Blundell, "Simple and scalable predictive uncertainty
    estimation using deep ensembles", NeurIPS 2017.

    >>> import keras, numpy as np, keras_mvn as kmvn
    >>> from keras_mvn.ensemble import DeepEnsemble
    >>> x = np.random.default_rng(0).normal(size=(64, 3))
    >>> y = x[:, :2] + 1.0
    >>> def builder():
    ...     head = kmvn.layers.MultivariateNormalHead(event_size=2)
    ...     head.adapt(y)
    ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "gelu"), head])
    ...     model.compile("adam", kmvn.losses.BalancedNegativeLogLikelihood())
    ...     return model
    >>> ensemble = DeepEnsemble(builder, n_members=2)
    >>> histories = ensemble.fit(x[:48], y[:48], (x[48:], y[48:]), epochs=2, verbose=0)
    >>> ensemble.predict(x[48:])
    Mixture(components=2, batch_shape=(16,), event_size=2)

    """

    def __init__(self, builder: Callable[[], Any], n_members: int = 5, seed: int = 0) -> None:
        if not callable(builder):
            raise TypeError(
                "DeepEnsemble: builder must be a function without arguments that returns a new "
                f"compiled model; received {type(builder).__name__}."
            )
        k = whole(n_members, "n_members", "the number of networks", 1)
        self._seed = whole(seed, "seed", "a whole number", 0)
        members = []
        for i in range(k):
            with random_state(self._member_seed(i, stage=0)):
                members.append(builder())
        self._set(members, fits=0)

    @classmethod
    def from_members(cls, members: Sequence[Any], seed: int = 0) -> Self:
        """The ensemble of models that exist already, trained or not.

        Args:
            members: compiled Keras models, each with a `MultivariateNormalHead`, which share no
                variables and no optimizer.
            seed: of the shuffles and the dropout of further training.

        Raises:
            TypeError: a member is not a Keras model.
            ValueError: no members, a member that is not compiled or has no head, members that
                share trained variables, or whose heads differ.

        """
        models = list(members)
        whole(len(models), "members", "at least one model", 1)
        ensemble = cls.__new__(cls)
        ensemble._seed = whole(seed, "seed", "a whole number", 0)
        ensemble._set(models, fits=0)
        return ensemble

    def _set(self, members: list[Any], fits: int) -> None:
        self._heads = checked_heads(members)
        self._members = members
        self._fits = fits
        self._trained_vectorized: bool | None = None

    def _member_seed(self, member: int, stage: int) -> int:
        """Stage 0 makes the member, every `fit` after it is one more."""
        state = np.random.SeedSequence([self._seed, member, stage]).generate_state(1)
        return int(state[0])

    @property
    def members(self) -> list[Any]:
        """The Keras models."""
        return list(self._members)

    @property
    def head(self) -> MultivariateNormalHead:
        """The head of the first member: structure, targets and their names are those of all."""
        return self._heads[0]

    @property
    def trained_vectorized(self) -> bool | None:
        """Whether the last `fit` trained all members in one pass; None before any."""
        return self._trained_vectorized

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return (
            f"DeepEnsemble(n_members={len(self)}, event_size={self.head.event_size}, "
            f"covariance={self.head.covariance.name!r})"
        )

    # --- training --------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        validation_data: Any = None,
        epochs: int = 1,
        batch_size: int | None = None,
        patience: int | None = 20,
        callbacks: Callable[[], Any] | None = None,
        vectorized: bool | None = None,
        verbose: int = 1,
        **fit_kwargs: Any,
    ) -> list[History]:
        """Train every member on the same data, with shuffles and early stopping of its own.

        With validation data, each member stops when its validation loss has not fallen for
        `patience` epochs, and takes back its best weights: a covariance overfits long before the
        training loss shows it. A second call trains on.

        On JAX all members are trained in one pass where that is possible: the same training,
        batch for batch, in a fraction of the time. It needs arrays, members that `builder` makes
        alike, and no callbacks; the table is held on the device, and a member that has stopped
        is computed along until the last one stops.

        Args:
            x: inputs, as `keras.Model.fit` takes them.
            y: (rows, d) targets; None if x is a dataset that has them.
            validation_data: (x, y) or (x, y, sample_weight), or a dataset.
            epochs: at most so many.
            batch_size: None is Keras' default, 32.
            patience: None trains all epochs; so do calls without validation data.
            callbacks: a function without arguments that makes new callbacks, called once for
                each member. A list is refused: callbacks keep what they have seen, and the second
                member would inherit the counters of the first.
            vectorized: None takes one pass where it is possible, True insists on it, False trains
                members in turn. `trained_vectorized` says what happened.
            verbose: 0 nothing, 1 a line for each member, 2 also Keras' line for each epoch where
                members are trained in turn.
            **fit_kwargs: further arguments of `keras.Model.fit`.

        Returns:
            One history per member, {"loss": [...], "val_loss": [...], ...}, an entry an epoch.

        Raises:
            TypeError: callbacks that are not a function which makes them.
            ValueError: `vectorized=True` where that cannot be; the message says why.

        """
        make_callbacks = _checked_callbacks(callbacks)
        validated = validation_data is not None or bool(fit_kwargs.get("validation_split"))
        if patience is not None:
            whole(patience, "patience", "None or a number of epochs", 0)
        patience = patience if validated else None
        epochs = whole(epochs, "epochs", "a number of epochs", 0)
        job = Job(x, y, validation_data, epochs, batch_size, patience, fit_kwargs)
        seeds = [self._member_seed(i, stage=1 + self._fits) for i in range(len(self))]
        line = _Progress(len(self), patience is not None, verbose)
        histories = None
        if vectorized is not False:
            reason = None if callbacks is None else "callbacks see one model at a time"
            histories = self._fit_in_one_pass(job, seeds, line, reason, bool(vectorized))
        self._trained_vectorized = histories is not None
        if histories is None:
            histories = self._fit_in_turn(job, seeds, line, make_callbacks, verbose)
        self._fits += 1
        return histories

    def _fit_in_one_pass(
        self, job: Job, seeds: list[int], line: _Progress, reason: str | None, required: bool
    ) -> list[History] | None:
        """Histories; None where a reason is against it, and one pass is not required."""
        if keras.backend.backend() != "jax":
            reason = f"the backend is {keras.backend.backend()!r}, not 'jax'"
        if reason is None:
            from keras_mvn.ensemble import _one_pass as one_pass  # imports JAX

            try:
                with random_state(seeds[0]):
                    return one_pass.train(self._members, job, seeds, line)
            except one_pass.NotVectorizableError as error:
                reason = str(error)
        if required:
            raise ValueError(
                f"vectorized=True: the members cannot be trained in one pass, because {reason}. "
                "Use vectorized=None or False to train them in turn."
            )
        if keras.backend.backend() == "jax":
            line.say(f"training members in turn, because {reason}")
        return None

    def _fit_in_turn(
        self,
        job: Job,
        seeds: list[int],
        line: _Progress,
        make_callbacks: Callable[[], list[Any]],
        verbose: int,
    ) -> list[History]:
        histories = []
        for i, (member, seed) in enumerate(zip(self._members, seeds, strict=True)):
            with random_state(seed):
                history = member.fit(
                    job.x,
                    job.y,
                    validation_data=job.validation_data,
                    epochs=job.epochs,
                    batch_size=job.batch_size,
                    callbacks=[_Seeded(seed), *make_callbacks(), *_early_stopping(job.patience)],
                    verbose=2 if verbose == 2 else 0,
                    **job.options,
                ).history
            line(i, history)
            histories.append(history)
        return histories

    # --- prediction ------------------------------------------------------------------------------

    def predict(
        self, x: Any, batch_size: int | None = None, output: str | int | None = None
    ) -> Mixture:
        """The mixture of what the members predict, each with the same weight.

        Args:
            x: inputs, as `keras.Model.predict` takes them.
            batch_size: None is Keras' default, 32.
            output: which output is the head's, of a model with several.

        Raises:
            ValueError: several outputs and none named, or predictions that are not finite.

        """
        predicted = [
            np.asarray(
                output_of(
                    member.predict(x, batch_size=batch_size, verbose=0),
                    output,
                    "DeepEnsemble.predict",
                )
            )
            for member in self._members
        ]
        return Mixture(self.head.distribution(np.stack(predicted)))

    # --- files -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write one `.keras` file per member and an index, `ensemble.json`.

        Written beside the folder and moved into place when complete: what was there before stays
        whole until then.

        Args:
            folder: new or empty, or an earlier save, which is replaced.

        Raises:
            FileExistsError: the folder holds something else.

        """
        target = Path(folder).resolve()
        if target.exists() and not (target / INDEX).is_file() and any(target.iterdir()):
            raise FileExistsError(
                f"{target} exists and holds no {INDEX}: it is not an earlier save, so it is not "
                "replaced. Choose another folder."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as fresh:
            fresh.mkdir()
            self._write(fresh)

    def _write(self, folder: Path) -> None:
        names = [f"member_{i}.keras" for i in range(len(self))]
        for name, member in zip(names, self._members, strict=True):
            member.save(folder / name)
        index = {
            "format": FORMAT,
            "keras_mvn": __version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "members": names,
            "seed": self._seed,
            "fits": self._fits,
        }
        write_json(folder / INDEX, index)

    @classmethod
    def load(cls, folder: str | Path, custom_objects: dict[str, Any] | None = None) -> Self:
        """The ensemble that `save` wrote, on any backend; ready to predict and to train on.

        Args:
            folder: as given to `save`.
            custom_objects: as in `keras.models.load_model`.

        Raises:
            FileNotFoundError: the folder holds no ensemble.
            ValueError: it was written by a newer version.

        """
        index_file = Path(folder) / INDEX
        if not index_file.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {INDEX}: DeepEnsemble.load takes the folder that "
                "DeepEnsemble.save wrote."
            )
        index = read_json(index_file)
        if index["format"] > FORMAT:
            raise ValueError(
                f"{folder} was written in format {index['format']} by keras-mvn "
                f"{index['keras_mvn']}; this version reads up to {FORMAT}. Upgrade keras-mvn."
            )
        members = [
            keras.models.load_model(Path(folder) / name, custom_objects=custom_objects)
            for name in index["members"]
        ]
        ensemble = cls.from_members(members, index["seed"])
        ensemble._fits = index["fits"]
        return ensemble


class _Seeded(keras.callbacks.Callback):
    """Seeds the shuffles when training begins: what Keras drew to build the model drops out."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        keras.utils.set_random_seed(self.seed)


def _early_stopping(patience: int | None) -> list[Any]:
    if patience is None:
        return []
    return [
        keras.callbacks.EarlyStopping(
            "val_loss", patience=patience, mode="min", restore_best_weights=True
        )
    ]


class _Progress:
    """Lines on the standard output, one for each member that is trained."""

    def __init__(self, k: int, stops_early: bool, verbose: int) -> None:
        self.k, self.stops_early, self.verbose = k, stops_early, verbose

    def __call__(self, member: int, history: History) -> None:
        if history:
            self.say(f"member {member + 1} of {self.k}: {self._summary(history)}")

    def say(self, line: str) -> None:
        if self.verbose:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    def _summary(self, history: History) -> str:
        epochs = len(history["loss"])
        if not self.stops_early or "val_loss" not in history:
            return f"{epochs} epochs, loss {history['loss'][-1]:.4g}"
        values = np.array(history["val_loss"])
        if np.isnan(values).all():
            return f"{epochs} epochs, val_loss never a number"
        best = int(np.nanargmin(values))
        return f"{epochs} epochs, best val_loss {values[best]:.4g} in epoch {best + 1}"


def _checked_callbacks(callbacks: Any) -> Callable[[], list[Any]]:
    """A function that makes a list of callbacks."""
    if callbacks is None:
        return list
    if not callable(callbacks) or isinstance(callbacks, keras.callbacks.Callback):
        raise TypeError(
            "callbacks must be a function without arguments that makes new callbacks, called once "
            f"for each member; received a {type(callbacks).__name__}. Callbacks keep what they "
            "have seen, and the second member would inherit the counters of the first. Use "
            "callbacks=lambda: [keras.callbacks.TerminateOnNaN(), ...]."
        )

    def make() -> list[Any]:
        made = callbacks()
        return list(made) if isinstance(made, list | tuple) else [made]

    return make
