"""The structure, the tails and the inputs that the estimator chooses on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from keras_mvn._training.members import Candidate, Fitter, Tried, candidates
from keras_mvn._training.recipe import Recipe

__all__ = ["Choices", "selected"]


MOST_EMBEDDED = 100
"""Number of inputs with more than two values above which embedding them takes too long to try."""


@final
@dataclass(frozen=True)
class Choices:
    """What is to be chosen; the rest is as in the recipe."""

    structure: bool
    tails: bool
    """Between a normal and a Student's t; without held-out rows, those of the recipe are kept."""
    embedding: bool
    """Between plain and embedded inputs; without held-out rows, plain ones are kept."""


def selected(fitter: Fitter, recipe: Recipe, others: int, choices: Choices) -> list[Tried]:
    """Compare structures, then inputs and tails of the best one; the best first.

    Structures are compared with the tails of a Student's t, which a normal is a case of; embedded
    inputs, and then the normal, are tried for the best of them alone.

    Args:
        fitter: what trains the candidates.
        recipe: recipe whose structure, tails and inputs are replaced.
        others: number of networks to be trained afterwards, in the same time budget.
        choices: what is to be chosen.

    Returns:
        The trained candidates; [] if nothing is to be chosen.

    """
    tails = choices.tails and fitter.can_select
    few = 0 < fitter.numbers <= MOST_EMBEDDED
    embedding = choices.embedding and fitter.can_select and few
    given = "t" if tails else recipe.tails
    if choices.structure:
        first = [one._replace(tails=given) for one in candidates(fitter.event_size)]
    elif tails or embedding:
        first = [Candidate(recipe.covariance.name, recipe.covariance, recipe.constant, given)]
    else:
        return []
    first = [one._replace(embedding=recipe.embedding) for one in first]
    n = fitter.smallest_ensemble
    tried = fitter.select(recipe, first, others + n * (tails + embedding))
    if embedding:
        waves = tried[0].candidate._replace(embedding="periodic")
        tried = fitter.select(recipe, [waves], others + n * tails, tried)
    if tails:
        normal = tried[0].candidate._replace(tails="normal")
        tried = fitter.select(recipe, [normal], others, tried)
    return tried
