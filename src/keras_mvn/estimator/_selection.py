"""The structure, the tails and the inputs that the estimator chooses on held-out rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from keras_mvn._training.candidates import Candidate, candidates
from keras_mvn._training.members import Fitter
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.stacking import Stacked
from keras_mvn._training.tried import Tried, best_first

__all__ = ["Choices", "selected"]


MOST_FOR_REGRESSORS = 4_000_000
"""Size of a table, (rows + 1000) × inputs × targets, above which fitting others takes too long."""

MOST_EMBEDDED = 100
"""Number of inputs with more than two values above which embedding them takes too long to try."""

MOST_ROWS_TIMES_EMBEDDED = 1_000_000
"""Their number times that of the rows, up to which it does not, for tables of few rows."""


FEWEST_FOR_COMPONENTS = 500
"""Rows a network learns from, from which on mixtures are tried."""

NUMBERS_OF_COMPONENTS = (2, 4, 8)

COMPONENTS_GAIN = 0.03
"""Nats per target by which a mixture must be better: its regions are no ellipsoids."""


@final
@dataclass(frozen=True)
class Choices:
    """What is to be chosen; the rest is as in the recipe."""

    structure: bool
    tails: bool
    """Between a normal and a Student's t; without held-out rows, those of the recipe are kept."""
    embedding: bool
    """Between plain and embedded inputs; without held-out rows, plain ones are kept."""
    mean: bool
    """Between networks alone and over another regressor; without held-out rows, the former."""
    stack: bool
    """Whether candidates are mixed, where that is better than the best of them."""
    components: bool
    """Between one distribution and a mixture for each row; without held-out rows, the former."""


def selected(fitter: Fitter, recipe: Recipe, others: int, choices: Choices) -> list[Tried]:
    """Compare structures, then means, inputs and tails of the best one; mix what is best together.

    Structures are compared with the tails of a Student's t, which a normal is a case of; networks
    over the best of other regressors, then embedded inputs, then the normal are tried for the best
    of the earlier ones alone. Regressors without a network, with one covariance of their errors,
    are candidates, too.

    Args:
        fitter: what trains the candidates.
        recipe: recipe whose structure, tails, inputs and mean are replaced.
        others: number of networks to be trained afterwards, in the same time budget.
        choices: what is to be chosen.

    Returns:
        The trained candidates with their weights, the best first; [] if nothing is to be chosen.

    """
    tails = choices.tails and fitter.can_select
    embedding = choices.embedding and fitter.can_select and _few(fitter)
    regressors = choices.mean and fitter.can_select and fitter.size <= MOST_FOR_REGRESSORS
    components = choices.components and fitter.can_select and fitter.rows >= FEWEST_FOR_COMPONENTS
    given = "t" if tails else recipe.tails
    if choices.structure:
        first = [one._replace(tails=given) for one in candidates(fitter.event_size)]
    elif tails or embedding or regressors or components:
        first = [Candidate(recipe.covariance.name, recipe.covariance, recipe.constant, given)]
    else:
        return []
    first = [
        one._replace(embedding=recipe.embedding, n_components=recipe.n_components) for one in first
    ]
    n = fitter.smallest_ensemble
    tried = fitter.select(recipe, first, others + n * (tails + embedding + regressors))
    others_alone: list[str | None] = [None] if fitter.over_a_regressor else []
    if regressors:
        others_alone = [*fitter.other_regressors()]
    alone = fitter.regressors_alone(tried[0].recipe, others_alone)
    if regressors and alone:
        better = best_first(alone)[0].candidate.mean
        assert better is not None
        fitter.prepare_networks_over(better)
        over = tried[0].candidate._replace(mean=better)
        tried = fitter.select(recipe, [over], others + n * (tails + embedding), tried)
    if embedding:
        waves = tried[0].candidate._replace(embedding="periodic")
        tried = fitter.select(recipe, [waves], others + n * tails, tried)
    if tails:
        normal = tried[0].candidate._replace(tails="normal")
        tried = fitter.select(recipe, [normal], others, tried)
        alone += fitter.regressors_alone(replace(recipe, tails="normal"), others_alone)
    alone = [] if recipe.n_components > 1 else alone
    found = Stacked([tried[0]._replace(weight=1.0), *tried[1:]], tried[0].validation_nll)
    if choices.stack:
        found = fitter.stacked(best_first([*tried, *alone]))
    return _with_components(fitter, recipe, others, found) if components else found.tried


def _with_components(fitter: Fitter, recipe: Recipe, others: int, found: Stacked) -> list[Tried]:
    """Return the candidates, with mixtures of several components if these predict better.

    Networks as the best one of a single distribution get 2 components, and more as long as each
    step is worth it; then the other networks that would predict get as many, and are mixed, too.
    """
    networks = best_first(one for one in found.tried if one.trained[0].epochs)
    if not networks:
        return found.tried
    several = list[Tried]()

    def try_out(one: Tried, n: int) -> Tried | None:
        candidate = one.candidate._replace(n_components=n)
        tried = fitter.select(recipe, [candidate], others, best_first([*networks, *several]))
        new = next((one for one in tried if one.candidate == candidate), None)
        several.extend([new] if new else [])
        return new

    gain = COMPONENTS_GAIN * fitter.event_size
    best = networks[0]
    for n in NUMBERS_OF_COMPONENTS:
        new = try_out(networks[0], n)
        if new is None or new.validation_nll > best.validation_nll - gain:
            break
        best = new
    if best is networks[0]:
        return [*found.tried, *several]
    together = Stacked([best._replace(weight=1.0)], best.validation_nll)
    used = [one for one in networks if one.weight > 0.0]
    if len(used) > 1:
        for one in used:
            if one is not networks[0]:
                try_out(one, best.candidate.n_components)
        together = fitter.stacked(best_first(several))
    if together.score > found.score - gain:
        return [*found.tried, *several]
    used = [one for one in together.tried if one.weight > 0.0]
    rest = [one for one in several if all(one.candidate != other.candidate for other in used)]
    return [*used, *best_first(one._replace(weight=0.0) for one in [*found.tried, *rest])]


def _few(fitter: Fitter) -> bool:
    """Whether embedding the inputs takes so little time that it is tried."""
    numbers = fitter.numbers
    small = numbers * fitter.rows <= MOST_ROWS_TIMES_EMBEDDED
    return numbers > 0 and (numbers <= MOST_EMBEDDED or small)
