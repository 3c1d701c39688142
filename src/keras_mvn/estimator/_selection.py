"""The structure and the tails that the estimator chooses on validation rows."""

from __future__ import annotations

from keras_mvn._training.members import Candidate, Fitter, Tried, candidates
from keras_mvn._training.recipe import Recipe

__all__ = ["selected"]


def selected(
    fitter: Fitter, recipe: Recipe, others: int, *, structure: bool, tails: bool
) -> list[Tried]:
    """Compare structures, and then the tails of the best one; the best first.

    Structures are compared with the tails of a Student's t, which a normal is a case of; the normal
    is then tried for the best of them alone.

    Args:
        fitter: what trains the candidates.
        recipe: recipe whose structure and tails are replaced.
        others: number of networks to be trained afterwards, in the same time budget.
        structure: whether to choose the structure.
        tails: whether to choose the tails; without validation rows, those of the recipe are kept.

    Returns:
        The trained candidates; [] if nothing is to be chosen.

    """
    both = tails and fitter.can_select
    given = "t" if both else recipe.tails
    if structure:
        choices = [one._replace(tails=given) for one in candidates(fitter.event_size)]
    elif both:
        choices = [Candidate(recipe.covariance.name, recipe.covariance, recipe.constant, given)]
    else:
        return []
    tried = fitter.select(recipe, choices, others + both)
    if not both:
        return tried
    normal = tried[0].candidate._replace(tails="normal")
    return fitter.select(recipe, [normal], others, tried)
