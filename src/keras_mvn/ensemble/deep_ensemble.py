"""Deep ensembles: several networks of one kind, whose predictions form a mixture of normals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import unmasked, whole
from keras_mvn._core.files import read_json, replacing, write_json
from keras_mvn._core.random_state import random_state
from keras_mvn._core.targets import in_order
from keras_mvn._core.version import __version__
from keras_mvn.distributions import Mixture
from keras_mvn.ensemble._job import Job
from keras_mvn.ensemble._members import checked_heads
from keras_mvn.layers._find_heads import output_of
from keras_mvn.layers._head import Head

__all__ = ["DeepEnsemble"]

FORMAT = 1
"""Version of the folder format that `save` writes."""

INDEX = "ensemble.json"

History = dict[str, list[float]]


@final
class DeepEnsemble:
    """An ensemble of networks that differ in initial weights and batch order; predicts a mixture.

    One network estimates how noisy y is; the disagreement of several networks also shows how wrong
    they may be themselves. They disagree most far from the training data.

    `builder` is called once for each member, under that member's own seed. It must create
    everything anew: model, head, optimizer. Seeds are derived from `seed` and the member's
    number (`numpy.random.SeedSequence`), so that ensembles with neighboring seeds share no
    members. The global states of Python's `random`, NumPy and PyTorch are restored afterwards;
    TensorFlow's global seed and Keras' global generator, which cannot be read, are left set.

    Args:
        builder: function without arguments that returns a compiled Keras model with a
            `MultivariateNormalHead` adapted to the targets. It may make members differ in other
            ways, too.
        n_members: k ≥ 1, number of networks; five is usual.
        seed: seed of initial weights, shuffles and dropout.

    Raises:
        TypeError: `builder` is not callable, or returns something other than a Keras model.
        ValueError: a model is not compiled or has no head, members share trained variables, or
            their heads differ.

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
        self._seed = whole(seed, "seed", "a random seed", 0)
        members = []
        for i in range(k):
            with random_state(self._member_seed(i, stage=0)):
                members.append(builder())
        self._set(members, fits=0)

    @classmethod
    def from_members(cls, members: Sequence[Any], seed: int = 0) -> Self:
        """Create an ensemble of existing models, trained or not.

        Args:
            members: compiled Keras models, each with a head of the same kind, that share no
                variables and no optimizer.
            seed: seed of the shuffles and the dropout in further training.

        Raises:
            TypeError: a member is not a Keras model.
            ValueError: there are no members, a member is not compiled or has no head, members
                share trained variables, or their heads differ.

        """
        models = list(members)
        whole(len(models), "len(members)", "the number of models", 1)
        ensemble = cls.__new__(cls)
        ensemble._seed = whole(seed, "seed", "a random seed", 0)
        ensemble._set(models, fits=0)
        return ensemble

    def _set(self, members: list[Any], fits: int) -> None:
        self._heads = checked_heads(members)
        self._members = members
        self._fits = fits
        self._trained_vectorized: bool | None = None

    def _member_seed(self, member: int, stage: int) -> int:
        """Return a member's seed: stage 0 creates the member, and each `fit` is a further stage."""
        state = np.random.SeedSequence([self._seed, member, stage]).generate_state(1)
        return int(state[0])

    @property
    def members(self) -> list[Any]:
        """The Keras models."""
        return list(self._members)

    @property
    def head(self) -> Head:
        """The first member's head, with the structure, targets and target names of all members."""
        return self._heads[0]

    @property
    def trained_vectorized(self) -> bool | None:
        """Whether the last `fit` trained all members in one pass; None before the first `fit`."""
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
        """Train every member on the same data, each with its own shuffles and early stopping.

        With validation data, each member stops when its validation loss has not fallen for
        `patience` epochs, and restores its best weights: a covariance overfits long before the
        training loss shows it. A second call continues training.

        On JAX, all members are trained in one pass if possible: the same training, batch by
        batch, in a fraction of the time. This needs arrays, members that `builder` makes alike,
        and no callbacks. The table is held on the device, and a member that has stopped is still
        computed until the last one stops.

        Args:
            x: inputs, as in `keras.Model.fit`.
            y: (rows, d), targets, by name if it is a table; masked entries are NaN. None if x is
                a dataset that contains them.
            validation_data: (x, y) or (x, y, sample_weight), or a dataset.
            epochs: maximum number of epochs.
            batch_size: rows per batch; None is Keras' default, 32.
            patience: number of epochs without improvement after which a member stops. None trains
                all epochs, as do calls without validation data.
            callbacks: function without arguments that returns new callbacks, called once for
                each member. A list is not accepted: callbacks have state, and the second member
                would inherit the counters of the first.
            vectorized: None trains in one pass if possible, True requires it, False trains members
                in turn. `trained_vectorized` tells what happened.
            verbose: 0 for nothing, 1 for a line per member, 2 also for Keras' line per epoch if
                members are trained in turn.
            **fit_kwargs: further arguments of `keras.Model.fit`.

        Returns:
            One history per member, {"loss": [...], "val_loss": [...], ...}, one entry per epoch.

        Raises:
            TypeError: callbacks is not a function that returns callbacks.
            ValueError: `vectorized=True` is not possible; the message says why.

        """
        make_callbacks = _checked_callbacks(callbacks)
        validated = validation_data is not None or bool(fit_kwargs.get("validation_split"))
        if patience is not None:
            whole(patience, "patience", "None or a number of epochs", 0)
        patience = patience if validated else None
        epochs = whole(epochs, "epochs", "a number of epochs", 0)
        y, validation_data = self._ordered(y), self._ordered_validation(validation_data)
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

    def _ordered(self, y: Any) -> Any:
        """Return y as the head names its targets, with NaN in place of masked entries."""
        return in_order(unmasked(y), self.head.target_names)

    def _ordered_validation(self, data: Any) -> Any:
        if not isinstance(data, tuple | list) or len(data) < 2:
            return data
        return (data[0], self._ordered(data[1]), *data[2:])

    def _fit_in_one_pass(
        self, job: Job, seeds: list[int], line: _Progress, reason: str | None, required: bool
    ) -> list[History] | None:
        """Train in one pass and return histories; None if not possible and not required."""
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
        """Predict the mixture of the members' distributions, with equal weights.

        Args:
            x: inputs, as in `keras.Model.predict`.
            batch_size: rows per batch; None is Keras' default, 32.
            output: name or index of the head's output, if the models have several.

        Raises:
            ValueError: there are several outputs and none is named, or predictions are not finite.

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
        """Save one `.keras` file per member and an index, `ensemble.json`.

        The files are written beside the folder and moved into place when complete; an earlier save
        stays intact until then.

        Args:
            folder: new or empty folder, or an earlier save, which is replaced.

        Raises:
            FileExistsError: the folder contains something else.

        """
        target = Path(folder).resolve()
        if target.exists() and not (target / INDEX).is_file() and any(target.iterdir()):
            raise FileExistsError(
                f"{target} exists but contains no {INDEX}: it is not an earlier save, so it is not "
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
        """Load an ensemble that `save` wrote, on any backend, ready for prediction and training.

        Args:
            folder: folder passed to `save`.
            custom_objects: as in `keras.models.load_model`.

        Raises:
            FileNotFoundError: the folder contains no ensemble.
            ValueError: the folder was written by a newer version.

        """
        index_file = Path(folder) / INDEX
        if not index_file.is_file():
            raise FileNotFoundError(
                f"{folder} contains no {INDEX}: DeepEnsemble.load takes a folder written by "
                "DeepEnsemble.save."
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
    """Seeds shuffles when training begins, regardless of what Keras drew to build the model."""

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
    """Prints one line per trained member to standard output."""

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
            return f"{epochs} epochs, val_loss always NaN"
        best = int(np.nanargmin(values))
        return f"{epochs} epochs, best val_loss {values[best]:.4g} in epoch {best + 1}"


def _checked_callbacks(callbacks: Any) -> Callable[[], list[Any]]:
    """Return a function that makes a list of callbacks."""
    if callbacks is None:
        return list
    if not callable(callbacks) or isinstance(callbacks, keras.callbacks.Callback):
        raise TypeError(
            "callbacks must be a function without arguments that returns new callbacks, called "
            f"once for each member; received a {type(callbacks).__name__}. Callbacks have state, "
            "and the second member would inherit the counters of the first. Use "
            "callbacks=lambda: [keras.callbacks.TerminateOnNaN(), ...]."
        )

    def make() -> list[Any]:
        made = callbacks()
        return list(made) if isinstance(made, list | tuple) else [made]

    return make
