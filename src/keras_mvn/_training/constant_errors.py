"""Networks that predict no mean and one covariance for all rows: that of another model's errors."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_mvn._core.random_state import random_state
from keras_mvn._core.types import Array
from keras_mvn._training.data import Moments, Part, sample
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.scoring import winsorized
from keras_mvn._training.train import Trained, prepared
from keras_mvn.calibration.temperature import most_likely_square
from keras_mvn.distributions._student_law import StudentLaw
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import heads
from keras_mvn.layers._min_scale import START
from keras_mvn.layouts import raw_degrees_of_freedom

__all__ = ["TRIED", "constant_errors", "recipe_of_constant_errors", "tails_of"]

TRIED = (2.0 + np.geomspace(0.2, 200.0, 40)).tolist()
"""Degrees of freedom among which the tails of errors are sought."""


def recipe_of_constant_errors(recipe: Recipe) -> Recipe:
    """Return the recipe of a network that ignores its inputs, with the same kind of predictions."""
    tails = recipe.tails if recipe.tails == "normal" else "t"
    return replace(
        recipe,
        tails=tails,
        n_components=1,
        constant="covariance",
        centered=True,
        hidden=(),
        embedding=None,
        builder=None,
    )


def constant_errors(
    recipe: Recipe, part: Part, inputs: Moments, seed: int, target_names: Sequence[str] | None
) -> Trained:
    """Make a network of the errors' covariance, and, for a Student's t, of their tails.

    Nothing is trained: the covariance is that which `adapt` finds; ν, and the scale that belongs to
    it, maximize the likelihood.

    Args:
        recipe: a recipe from `recipe_of_constant_errors`.
        part: its rows, whose targets are errors of another model.
        inputs: moments and range of the inputs, which the network limits and ignores.
        seed: seed of weights, of which none matters.
        target_names: d names.

    """
    began = time.monotonic()
    with random_state(seed):
        own = replace(part, residuals=None)
        model = prepared(recipe, own, inputs, seed, target_names).model
    head = heads(model)[-1]
    if recipe.tails != "normal":
        _fit_tails(head, sample(part.training.y, part.training.rows)[1])
    return Trained(model, {}, False, time.monotonic() - began)


def _fit_tails(head: MultivariateNormalHead, errors: Array) -> None:
    """Set ν, unless it is fixed, and the scale of a head whose covariance is that of errors."""
    errors = errors[~np.isnan(errors).all(axis=1)]
    one: Any = head.distribution(head.constant_prediction())[0]
    squared = one.mahalanobis(errors, missing="marginalize") ** 2
    observed = np.count_nonzero(~np.isnan(errors), axis=1)
    raw = head.raw_degrees_of_freedom
    candidates = TRIED if raw is not None else [float(one.law.degrees_of_freedom)]
    nu, factor = tails_of(squared, observed, candidates)
    if raw is not None:
        raw.assign(np.array([raw_degrees_of_freedom(np.float64(nu))]))
    scale, floor = (
        np.zeros(head.event_size) if weight is None else keras.ops.convert_to_numpy(weight)
        for weight in (head.origin_scale, head.scale_floor)
    )
    head.origin_scale.assign(np.maximum(factor * np.asarray(scale), START * np.asarray(floor)))


def tails_of(squared: Array, observed: Array, candidates: Sequence[float]) -> tuple[float, float]:
    """Return the most likely ν of squared distances, and the factor of the scale they belong to.

    No distance counts for more than what is far out among them.

    log p = log Γ((ν + d)/2) − log Γ(ν/2) − d/2 log(ν c²) − (ν + d)/2 log(1 + q/(ν c²))

    Args:
        squared: q, (n,), squared distances in scales.
        observed: d, (n,), numbers of targets.
        candidates: the ν that are compared.

    """
    squared = winsorized(squared)

    def fitted(nu: float) -> tuple[float, float]:
        law = StudentLaw(np.array(nu))
        square = most_likely_square(law, squared, observed, robust=False)
        density = law.log_density(squared / square, observed) - 0.5 * observed * math.log(square)
        return float(density.mean()), square

    _, square, nu = max((*fitted(nu), nu) for nu in candidates)
    return float(nu), math.sqrt(square)
