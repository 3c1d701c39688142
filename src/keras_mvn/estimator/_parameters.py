"""Checks of the estimator's parameters, which are stored unchanged until `fit`."""

from __future__ import annotations

import numbers
import reprlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mvn import covariances
from keras_mvn._core.checks import whole
from keras_mvn._core.targets import checked_missing
from keras_mvn._training.recipe import Recipe, likelihood_of, loss_for, predicts_tails
from keras_mvn.estimator._calibration import calibration_kind
from keras_mvn.estimator._cross_fitting import SMALLEST_FOLDS
from keras_mvn.estimator._mean import AUTO, is_frozen, regressor_for
from keras_mvn.estimator._selection import Choices

__all__ = ["choices_of", "recipe_of"]


def _is_auto(covariance: Any) -> bool:
    """Whether `fit` chooses the covariance structure."""
    return isinstance(covariance, str) and covariance == "auto"


def recipe_of(estimator: Any) -> Recipe:
    """Return the training recipe; with "auto", its structure is a placeholder.

    Raises:
        ValueError: a parameter is invalid; the message names it and what is expected.

    """
    _check_what_is_no_recipe(estimator)
    structure = _structure(estimator)
    loss_for(estimator.loss, structure, "propagate")
    batch_size = estimator.batch_size
    if isinstance(batch_size, str) and batch_size == "auto":
        batch_size = None
    else:
        batch_size = whole(batch_size, "batch_size", "'auto' or a number of rows", 1)
    return Recipe(
        covariance=structure,
        loss=estimator.loss,
        n_components=_components(estimator),
        constant=estimator.constant,
        tails=_tails(estimator),
        hidden=_widths(estimator.hidden),
        activation=_activation(estimator.activation),
        dropout=_share(estimator.dropout, "dropout"),
        embedding="periodic" if estimator.embedding == "periodic" else None,
        centered=is_frozen(estimator.mean),
        builder=_builder(estimator.builder),
        learning_rate=_positive(estimator.learning_rate, "learning_rate"),
        epochs=whole(estimator.epochs, "epochs", "a number of epochs", 1),
        batch_size=batch_size,
        patience=whole(estimator.patience, "patience", "a number of epochs", 1),
    )


def _tails(estimator: Any) -> str:
    """Return the tails to train with; with "auto", those that are compared with a normal's."""
    if estimator.tails in ("t", "t_per_row"):
        return str(estimator.tails)
    return "t" if predicts_tails(estimator.loss) else "normal"


def choices_of(estimator: Any) -> Choices:
    """Return what `fit` chooses on held-out rows."""
    return Choices(
        _is_auto(estimator.covariance),
        _chooses_tails(estimator),
        _chooses_embedding(estimator),
        _chooses_mean(estimator),
        bool(estimator.stack),
        _chooses_components(estimator),
    )


def _chooses_tails(estimator: Any) -> bool:
    """Whether `fit` chooses between a normal and a Student's t."""
    loss = estimator.loss
    return bool(estimator.tails == "auto" and likelihood_of(loss) and not predicts_tails(loss))


def _chooses_embedding(estimator: Any) -> bool:
    """Whether `fit` chooses between plain and embedded inputs."""
    return bool(estimator.embedding == "auto" and estimator.builder is None)


def _chooses_mean(estimator: Any) -> bool:
    """Whether `fit` chooses between networks alone and networks over another regressor."""
    auto = isinstance(estimator.mean, str) and estimator.mean == AUTO
    return auto and estimator.builder is None


def _components(estimator: Any) -> int:
    """Return the number of components to train with, 1 for "auto"; check that it fits the rest."""
    given = estimator.n_components
    if isinstance(given, str) and given == "auto":
        return 1
    n = whole(given, "n_components", "'auto' or the number of components", 1)
    why_not = _no_mixture_because(estimator)
    if n > 1 and why_not is not None:
        raise ValueError(
            f"n_components={n} cannot be combined with {why_not}. Pass another value there, or "
            "n_components=1."
        )
    return n


def _chooses_components(estimator: Any) -> bool:
    """Whether `fit` chooses between one distribution and a mixture for each row."""
    auto = isinstance(estimator.n_components, str) and estimator.tails == "auto"
    return auto and _no_mixture_because(estimator) is None


def _no_mixture_because(estimator: Any) -> str | None:
    """Return the parameter that rules out mixtures and its value, or None."""
    kind = calibration_kind(estimator.calibration)
    ruled_out = {
        "loss": not likelihood_of(estimator.loss),
        "tails": estimator.tails == "t_per_row",
        "mean": is_frozen(estimator.mean),
        "calibration": kind is not None and not kind.takes_mixtures,
    }
    name = next((name for name, rules_out in ruled_out.items() if rules_out), None)
    return None if name is None else f"{name}={getattr(estimator, name)!r}"


def _check_embedding(embedding: Any, builder: Any) -> None:
    known = embedding is None or (isinstance(embedding, str) and embedding in EMBEDDINGS)
    if not known:
        raise ValueError(
            f"embedding={embedding!r} is not known. Expected None, 'auto' or 'periodic'."
        )
    if embedding == "periodic" and builder is not None:
        raise ValueError(
            "embedding='periodic' cannot be combined with builder, which receives plain inputs. "
            "Use keras_mvn.layers.PeriodicEmbedding in the builder."
        )


EMBEDDINGS = ("auto", "periodic")


def _check_mean(mean: Any, target_transform: Any) -> None:
    regressor_for(mean)
    if is_frozen(mean) and target_transform is not None:
        raise ValueError(
            f"mean={mean!r} cannot be combined with target_transform={target_transform!r}: the "
            "mean of transformed targets is not the transformed mean. Pass target_transform=None, "
            "or the regressor unfrozen, which is then fitted to the transformed targets."
        )


def _check_tails(tails: Any, loss: Any) -> None:
    if not isinstance(tails, str) or tails not in ("auto", "normal", "t", "t_per_row"):
        raise ValueError(
            f"tails={tails!r} is not known. Expected 'auto', 'normal', 't' or 't_per_row'."
        )
    if tails in ("t", "t_per_row") and not likelihood_of(loss):
        raise ValueError(
            f"tails={tails!r} trains by the likelihood of a Student's t, and loss={loss!r} is "
            "another score. Use loss='balanced' or 'nll', or tails='normal'."
        )
    if tails == "normal" and predicts_tails(loss):
        raise ValueError(
            f"tails='normal' and loss={loss!r} contradict each other: this loss is the likelihood "
            "of a Student's t. Use tails='t', or another loss."
        )


def _check_cv(cv: Any) -> None:
    is_text = isinstance(cv, str)
    if cv is None or (is_text and cv == "auto") or (hasattr(cv, "split") and not is_text):
        return
    if isinstance(cv, bool) or not isinstance(cv, numbers.Integral):
        raise ValueError(
            f"cv={reprlib.repr(cv)} must be 'auto', None (rows are held out), a number of folds, "
            "or a splitter such as sklearn.model_selection.KFold(5); lists of rows are none."
        )
    whole(cv, "cv", "a number of folds", SMALLEST_FOLDS)


def _check_what_is_no_recipe(estimator: Any) -> None:
    _check_tails(estimator.tails, estimator.loss)
    calibration_kind(estimator.calibration)
    _check_cv(estimator.cv)
    _check_embedding(estimator.embedding, estimator.builder)
    _check_mean(estimator.mean, estimator.target_transform)
    checked_missing(estimator.missing)
    if not isinstance(estimator.isolated, str) or estimator.isolated not in ("missing", "keep"):
        raise ValueError(f"isolated={estimator.isolated!r} must be 'missing' or 'keep'.")
    whole(estimator.n_members, "n_members", "the number of networks", 1)
    if estimator.time_budget is not None:
        _positive(estimator.time_budget, "time_budget")
    shares = [
        _share(getattr(estimator, name), name)
        for name in ("validation_fraction", "calibration_fraction")
    ]
    if sum(shares) >= 1:
        raise ValueError(
            f"validation_fraction={shares[0]} and calibration_fraction={shares[1]} leave no rows "
            "to train on."
        )


def _structure(estimator: Any) -> covariances.Covariance:
    if not _is_auto(estimator.covariance):
        try:
            return covariances.get(estimator.covariance)
        except ValueError as error:
            raise ValueError(f"{error} Or pass 'auto' to choose among several.") from None
    if estimator.constant is not None:
        raise ValueError(
            "covariance='auto' decides which part of the covariance is constant; "
            f"constant={estimator.constant!r} must be None."
        )
    return covariances.get(covariances.DEFAULT)


def _widths(hidden: Any) -> tuple[int, ...]:
    if isinstance(hidden, str) or not isinstance(hidden, Sequence | np.ndarray):
        raise ValueError(f"hidden={hidden!r} must be a sequence of layer widths, such as (64, 64).")
    return tuple(whole(width, "hidden", "the width of a layer", 1) for width in hidden)


def _activation(activation: Any) -> Any:
    try:
        keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"activation={activation!r} is not known to Keras. Use, for example, 'gelu' or 'silu'."
        ) from error
    return activation


def _builder(builder: Any) -> Any:
    if builder is not None and not callable(builder):
        raise ValueError(
            f"builder={builder!r} must be None or a function from the standardized inputs to "
            "the inputs of the head."
        )
    return builder


def _share(value: Any, name: str) -> float:
    number = _number(value)
    if not 0 <= number < 1:
        raise ValueError(f"{name}={value!r} must be a number ≥ 0 and < 1.")
    return number


def _positive(value: Any, name: str) -> float:
    number = _number(value)
    if not 0 < number < np.inf:
        raise ValueError(f"{name}={value!r} must be a positive number.")
    return number


def _number(value: Any) -> float:
    """Return value as a float; NaN if it is not a number."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return float(value) if is_number else float("nan")
