"""The networks that `keras-mvn fit` trains: the model and its baselines."""

from __future__ import annotations

from collections.abc import Iterator

from keras_mvn._training.candidates import Candidate, constant_covariance, independent
from keras_mvn_cli import _assessing
from keras_mvn_cli._console import Output, RefusalError
from keras_mvn_cli._fit_directory import FitFolder
from keras_mvn_cli.fitting.networks import (
    Arrays,
    Network,
    Settings,
    compared_in_words,
    reuse,
    train,
)
from keras_mvn_cli.fitting.options import FitOptions
from keras_mvn_cli.fitting.table import Prepared

__all__ = ["trained_networks", "widths_of"]

SHARE_OF_MODEL = 0.7
"""The model's share of a time budget; the baselines get the rest."""


def trained_networks(
    options: FitOptions, prepared: Prepared, folder: FitFolder, output: Output
) -> tuple[dict[str, Network], bool]:
    """Train the model and its baselines; also return whether ^C cut training short."""
    baselines = not options.no_baselines
    model = _settings(options, SHARE_OF_MODEL if baselines else 1.0)
    trained = {"model": train(model, prepared.arrays, folder.work / "model", output, "the model")}
    if trained["model"].interrupted:
        return trained, True
    _tell_selection(output, trained["model"], prepared.arrays)
    if not baselines:
        return trained, False
    for name, settings, candidate in _baselines(options, model, trained["model"]):
        place = folder.work / name.replace(" ", "_")
        reuse(folder.work / "model", candidate, place)
        try:
            network = train(settings, prepared.arrays, place, output, f"baseline: {name}")
        except KeyboardInterrupt:
            return trained, True
        if network.interrupted:
            return trained, True
        trained[name] = network
    return trained, False


def _settings(options: FitOptions, share: float) -> Settings:
    budget = options.time_budget
    return Settings(
        covariance=options.covariance,
        calibration=options.calibration if options.calibrated else None,
        seed=options.seed,
        members=options.members,
        time_budget=None if budget is None else share * budget,
        options={
            "loss": options.loss,
            "tails": options.tails,
            "n_components": options.components,
            "isolated": options.isolated,
            "stack": options.stack,
            "embedding": None if options.embedding == "none" else options.embedding,
            "mean": None if options.mean == "none" else options.mean,
            "hidden": widths_of(options.hidden),
            "dropout": options.dropout,
            "epochs": options.epochs,
            "patience": options.patience,
            "batch_size": options.batch_size or "auto",
            "learning_rate": options.learning_rate,
        },
    )


def _baselines(
    options: FitOptions, model: Settings, trained: Network
) -> Iterator[tuple[str, Settings, Candidate]]:
    """Yield name, settings, and the "auto" candidate that is the same network.

    They have the model's tails and inputs, so that they differ from it in their covariance alone.
    """
    same = trained.like_its_networks
    chosen = options.mean == "auto"
    budget = options.time_budget
    share = None if budget is None else 0.5 * (1.0 - SHARE_OF_MODEL) * budget
    structures = {
        _assessing.DIAGONAL: independent(),
        _assessing.CONSTANT: constant_covariance(trained.event_size),
    }
    for name, candidate in structures.items():
        yield (
            name,
            Settings(
                candidate.covariance,
                model.calibration,
                model.seed,
                candidate.constant,
                members=model.members,
                time_budget=share,
                options={**model.options, **same},
            ),
            candidate._replace(**{**same, "mean": same["mean"] if chosen else None}),
        )


def _tell_selection(output: Output, network: Network, arrays: Arrays) -> None:
    if network.selection:
        d = arrays.targets_in_a_row(arrays.selecting)
        tried = ", ".join(compared_in_words(one, d) for one in network.selection)
        output.say(f"  by NLL per target on held-out rows: {tried}")


def widths_of(text: str) -> tuple[int, ...]:
    """Parse the widths of the hidden layers from `--hidden`."""
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1:
        raise RefusalError(f"--hidden {text}: expected widths of hidden layers, such as 64,64.")
    return widths
