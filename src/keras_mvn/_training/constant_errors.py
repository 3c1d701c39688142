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
from keras_mvn.covariances.links import positive_inverse
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import heads
from keras_mvn.layers._min_scale import START

__all__ = ["TRIED", "constant_errors", "recipe_of_constant_errors", "tails_of"]

TRIED = (2.0 + np.geomspace(0.2, 200.0, 40)).tolist()
"""Degrees of freedom among which the tails of errors are sought."""


def recipe_of_constant_errors(recipe: Recipe) -> Recipe:
    """Return the recipe of a network that ignores its inputs, with the same kind of predictions."""
    tails = recipe.tails if recipe.tails == "normal" else "t"
    return replace(
        recipe,
        tails=tails,
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
        raw.assign(np.array([positive_inverse(np.float64((nu - 2.0) / 8.0))]))
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
    factors = [_factor(squared, observed, nu) for nu in candidates]
    found = [
        _likelihood(squared, observed, *each) for each in zip(candidates, factors, strict=True)
    ]
    best = int(np.argmax(found))
    return float(candidates[best]), factors[best]


def _factor(squared: Array, observed: Array, nu: float) -> float:
    """Return the most likely c, by the fixed-point equation c² Σd = Σ (ν + d) q/(ν + q/c²)."""
    square = 1.0
    for _ in range(200):
        after = float(np.sum((nu + observed) * squared / (nu + squared / square)) / observed.sum())
        if abs(after - square) <= 1e-8 * square:
            break
        square = after
    return float(np.sqrt(square))


def _likelihood(squared: Array, observed: Array, nu: float, factor: float) -> float:
    lgamma = np.vectorize(math.lgamma, otypes=[float])
    dims, of_row = np.unique(observed, return_inverse=True)
    constant = (
        lgamma(0.5 * (nu + dims)) - math.lgamma(0.5 * nu) - 0.5 * dims * np.log(nu * factor**2)
    )
    tail = 0.5 * (nu + observed) * np.log1p(squared / (nu * factor**2))
    return float(np.mean(constant[of_row] - tail))
