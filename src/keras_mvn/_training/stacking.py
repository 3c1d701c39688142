"""Weights of candidates whose mixture is the best on rows that none of them has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn._training.data import Part, Table, thinned
from keras_mvn._training.prediction import delivered, has_components, predict
from keras_mvn._training.scoring import Scored
from keras_mvn._training.train import Trained
from keras_mvn._training.tried import Tried
from keras_mvn.scores import cell_log_score

__all__ = ["Stacked", "stacked", "stacking_weights"]

STEPS = 20
"""Votes that are given, one after the other."""

SMALLEST = 0.1
"""Weights below which a candidate is left out: it costs more than it is worth."""

GAIN = 0.005
"""Nats per target below which the best candidate alone is as good as a mixture."""

NUMBERS = 2_000_000
"""Size of the covariances of all rows that are looked at, in numbers."""


class Stacked(NamedTuple):
    """Candidates with the weights with which they predict together, the best first."""

    tried: list[Tried]
    score: float
    """Mean of −log p over the held-out rows."""


def stacked(tried: Sequence[Tried], parts: Sequence[Sequence[Part]]) -> Stacked:
    """Return candidates with the weights of the mixture that predicts best, the best first.

    Those of the best one's kind are mixed: of its structure and tails, with all networks.

    Args:
        tried: the candidates, the best first.
        parts: the rows of the networks of each.

    """
    best = tried[0]
    alike = [i for i, one in enumerate(tried) if _kind(one) == _kind(best)]
    weights, score = np.zeros(len(tried)), best.validation_nll
    weights[alike] = 1.0
    if len(alike) > 1:
        weights[alike], score = stacking_weights(
            [tried[i].trained for i in alike], [parts[i] for i in alike]
        )
    found = [one._replace(weight=float(w)) for one, w in zip(tried, weights, strict=True)]
    return Stacked(sorted(found, key=lambda one: -one.weight), score)


def _kind(one: Tried) -> tuple[Any, ...]:
    recipe = one.recipe
    return recipe.covariance, recipe.tails == "normal", recipe.n_components, len(one.trained)


def stacking_weights(
    trained: Sequence[Sequence[Trained]], parts: Sequence[Sequence[Part]]
) -> tuple[Array, float]:
    """Return the weights with which candidates predict held-out rows best together, and the score.

    Votes are given one after the other, each to the candidate with which the mixture of all votes
    so far scores best; what is scored is what is delivered: of normals and Student's t, one
    distribution with the mean and the covariance of the mixture. The first vote is that for the
    best candidate.

    Args:
        trained: the networks of each candidate, one for each part.
        parts: the parts of each candidate, with the same rows and its own inputs.

    Source: Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble selection from libraries of models",
    ICML 2004; for scores of distributions, Yao, Vehtari, Simpson & Gelman, "Using stacking to
    average Bayesian predictive distributions", Bayesian Analysis 13 (2018).

    """
    tables = [_held_out(part) for part in parts[0]]
    rows = [thinned(table.rows, NUMBERS, table.y.shape[1] ** 2) for table in tables]
    answers = [
        [
            _answer(one, _held_out(part), at)
            for one, part, at in zip(networks, own, rows, strict=True)
        ]
        for networks, own in zip(trained, parts, strict=True)
    ]
    observed = [_observed(table, at) for table, at in zip(tables, rows, strict=True)]
    weights = np.concatenate([table.weights(at) for table, at in zip(tables, rows, strict=True)])
    heads = [one.head for one in trained[0]]

    def scored(found: Sequence[Any]) -> Array:
        each = zip(found, observed, heads, strict=True)
        return np.concatenate(
            [cell_log_score(one, y, head.resolution, "marginalize") for one, y, head in each]
        )

    if has_components(answers[0][0]):  # what is delivered is the mixture itself
        alone = np.stack([scored(found) for found in answers])

        def together(some: np.ndarray, shares: Array) -> Array:
            return -np.asarray(np.logaddexp.reduce(np.log(shares)[:, None] - alone[some], axis=0))

    else:

        def together(some: np.ndarray, shares: Array) -> Array:
            parts = range(len(rows))
            return scored([delivered([answers[c][i] for c in some], shares) for i in parts])

    def score(votes: Array) -> float:
        some = np.flatnonzero(votes)
        return Scored(together(some, votes[some] / votes.sum()), weights).mean

    return _voted(score, len(trained), GAIN * heads[0].event_size)


def _voted(score: Callable[[Array], float], candidates: int, gain: float) -> tuple[Array, float]:
    """Return shares of the votes and their score; one candidate's if others gain too little."""
    single = np.eye(candidates)
    alone = [score(one) for one in single]
    votes = single[int(np.argmin(alone))].copy()
    best, least = votes.copy(), min(alone)
    for _ in range(STEPS - 1):
        scores = [score(votes + one) for one in single]
        votes = votes + single[int(np.argmin(scores))]
        if min(scores) < least:
            best, least = votes.copy(), min(scores)
    shares = best / best.sum()
    kept = np.where(shares < SMALLEST, 0.0, shares)
    kept = kept / kept.sum()
    together = score(kept)
    if together < min(alone) - gain:
        return kept, together
    return single[int(np.argmin(alone))], min(alone)


def _answer(one: Trained, table: Table, rows: np.ndarray) -> Any:
    """Predict these rows, in the units of the targets as they were measured."""
    x = np.asarray(table.x[rows])
    answer = one.head.distribution(predict(one.model, x))
    if table.measured is None:
        return answer
    return answer + np.asarray(x[:, -table.y.shape[1] :], np.float64)  # m(x) beside the inputs


def _observed(table: Table, rows: np.ndarray) -> Array:
    return np.asarray((table.y if table.measured is None else table.measured)[rows], np.float64)


def _held_out(part: Part) -> Table:
    assert part.held_out is not None
    return part.held_out
