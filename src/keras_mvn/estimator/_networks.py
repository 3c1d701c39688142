"""The networks of an estimator: which predict, with what weights, over what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from keras_mvn._training.member import Member, members_of
from keras_mvn._training.members import Fitter
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.train import Trained
from keras_mvn._training.tried import Tried, best_first

__all__ = ["Weighted", "all_members", "networks_of", "weighted"]


class Weighted(NamedTuple):
    """A network of the mixture that predicts."""

    trained: Trained
    recipe: Recipe
    weight: float


def weighted(fitter: Fitter, recipe: Recipe, n: int, tried: Sequence[Tried]) -> list[Weighted]:
    """Return the networks that predict, of which network i has not seen the rows of part i.

    The networks of a candidate share its weight.

    Args:
        fitter: what trains those that are missing.
        recipe: what to train if there are no candidates.
        n: number of networks of the best candidate that is trained.
        tried: candidates with their weights; there may be none.

    """
    if not tried:
        members = fitter.members(recipe, n)  # fewer after ^C
        return [Weighted(one, recipe, 1.0 / len(members)) for one in members]
    parts = fitter.smallest_ensemble
    used = [one for one in tried if one.weight > 0.0]
    networks = best_first(one for one in used if one.trained[0].epochs)
    found, further = [], []
    for one in used:
        trained = list(one.trained)
        if networks and one is networks[0]:
            trained = fitter.members(one.recipe, n, first=trained)
        each = [Weighted(part, one.recipe, one.weight / len(trained)) for part in trained]
        found += each[:parts]
        further += each[parts:]  # at the end, so that network i still belongs to part i modulo k
    return found + further


def networks_of(state: Mapping[str, Any]) -> list[Any]:
    """Return the Keras models among the attributes of an estimator; [] before `fit`."""
    if "ensemble_" in state:
        return list(state["ensemble_"].members)
    return [state["model_"]] if "model_" in state else []


def all_members(state: Mapping[str, Any]) -> list[Member]:
    """Return what predicts: its networks, over the predictions of `mean` if there is one."""
    weights = state.get("weights_", ())  # none in old pickles
    return members_of(networks_of(state), state.get("_centers", ()), weights)
