"""Scores of rows that networks have not seen, by which candidates are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn._training.data import Part, thinned
from keras_mvn._training.prediction import predict
from keras_mvn._training.train import Trained
from keras_mvn.layers._head import Head
from keras_mvn.scores import cell_log_score

__all__ = ["Scored", "scored", "subsample", "winsorized"]

MOST_RANGES = 20.0
"""Interquartile ranges (of at least a nat) above the third quartile to which a row's score counts.

Where errors have tails, a normal still pays for them: 20 nats are an error of six deviations.
"""

NUMBERS_AT_ONCE = 20_000_000
"""Size of predictions for held-out rows, in numbers: 160 MB."""


@final
class Scored(NamedTuple):
    """The scores of held-out rows, of one network after the other, and their weights."""

    scores: Array
    weights: Array

    @property
    def mean(self) -> float:
        """The mean score; no row counts more than what is far out among them."""
        return float(np.average(winsorized(self.scores), weights=self.weights))

    def first(self, rows: int) -> Scored:
        """Return the scores of the first rows."""
        return Scored(self.scores[:rows], self.weights[:rows])

    @classmethod
    def joined(cls, parts: Sequence[Scored]) -> Scored:
        """Return the scores of several networks, one after the other."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def clearly_worse(self, other: Scored) -> bool:
        """Whether these rows have a larger mean than with other networks, by a standard error.

        The other scores may go on with further rows.
        """
        n = len(self.scores)
        difference = winsorized(self.scores) - winsorized(other.first(n).scores)
        mean = np.average(difference, weights=self.weights)
        return bool(mean > difference.std() / np.sqrt(max(n - 1, 1)))


def scored(trained: Sequence[Trained], parts: Sequence[Part]) -> Scored:
    """Score the rows that each network has not seen."""
    found = [_scores(one, part) for one, part in zip(trained, parts, strict=False) if part.held_out]
    return Scored.joined(found)


def _scores(trained: Trained, part: Part) -> Scored:
    table = part.held_out
    assert table is not None
    rows = subsample(table.rows, trained.head)
    y_pred = predict(trained.model, np.asarray(table.x[rows]))
    y = np.asarray(table.y[rows], np.float64)
    answer = trained.head.distribution(y_pred)
    # Where values repeat, the cells' probabilities: densities there reward scales that collapse.
    score = cell_log_score(answer, y, trained.head.resolution, "marginalize")
    return Scored(score, table.weights(rows))


def winsorized(scores: Array) -> Array:
    """Return scores, none larger than what is far out among them: one row must not choose."""
    low, high = np.nanquantile(scores, (0.25, 0.75))
    return np.minimum(scores, high + MOST_RANGES * max(high - low, 1.0))


def subsample(rows: np.ndarray, head: Head) -> np.ndarray:
    """A subset of rows small enough that their predictions fit in memory."""
    width = head.covariance.packed_size(head.event_size)
    return thinned(rows, NUMBERS_AT_ONCE, width)
