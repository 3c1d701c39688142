"""Rows that lack inputs, or have some beyond what was seen: predicted as widely as they should.

What is known of such a row is p(y | observed) = ∫ p(y | x) p(absent | observed) d absent. The
integral is a mean over values of similar training rows. An input beyond the training rows is known,
but what it does there is not: the further out, the more the same spread is added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn._training.member import Member, predict_distribution
from keras_mvn._training.prediction import averaged
from keras_mvn.distributions import Distribution
from keras_mvn.layers import SoftClip

__all__ = ["DONORS", "Donors", "predict_beyond"]

DONORS = 1000
"""Maximum number of training rows whose values are used."""

DRAWS = 20
"""Values per absent input: the standard error of a variance that is all theirs is 30 %."""

NEAR = 0.1
"""Standard deviations beyond the training rows up to which inputs are as good as within."""

AT_ONCE = 5000
"""Rows for which values of training rows are drawn at a time."""

MOST_TARGETS = 200
"""Number of targets up to which covariances are widened, which makes them full matrices."""

RIDGE = 1e-2
"""Share of the variance of a standardized input that is added to it, for collinear ones."""


@final
class Donors:
    """Training rows whose values replace absent inputs: predictive mean matching.

    A ridge regression on the donors predicts the absent inputs from the observed ones. The donors
    whose own predictions are nearest to that of the row give it their values, all absent ones
    jointly, so that these keep their spread around the regression, and their correlations.

    Args:
        rows: (m, features), inputs of training rows.

    Source: Little, "Missing-data adjustments in large surveys", Journal of Business & Economic
    Statistics 6 (1988), the default of R's mice.

    """

    def __init__(self, rows: Array) -> None:
        self.rows = np.asarray(rows, np.float64)
        spread = self.rows.std(axis=0)
        self._center = self.rows.mean(axis=0)
        self._spread = np.where(spread > 0.0, spread, np.inf)  # constant columns tell nothing
        self._standardized = self._in_spreads(self.rows)

    def draws(self, x: Array, absent: np.ndarray) -> Array:
        """Return inputs with values for the absent ones: (draws, n, features).

        Args:
            x: (n, features), whose values at absent entries do not matter.
            absent: (n, features), whether an input is absent.

        """
        count = min(DRAWS, len(self.rows))
        found = np.repeat(np.asarray(x, np.float64)[None], count, axis=0)
        patterns, of_row = np.unique(absent, axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            rows = np.flatnonzero(of_row.ravel() == i)
            if pattern.any():
                chosen = self._nearest(x[rows], pattern, count)  # (rows, count)
                values = self.rows[:, pattern][chosen]
                found[:, rows[:, None], np.flatnonzero(pattern)] = np.moveaxis(values, 1, 0)
        return found

    def _nearest(self, x: Array, pattern: np.ndarray, count: int) -> np.ndarray:
        known, sought = self._standardized[:, ~pattern], self._standardized[:, pattern]
        gram = known.T @ known + RIDGE * len(known) * np.eye(known.shape[1])
        slopes = np.linalg.solve(gram, known.T @ sought)
        given = self._in_spreads(np.asarray(x, np.float64))[:, ~pattern]
        distance = self._distances(given @ slopes, known @ slopes)
        return np.argpartition(distance, count - 1, axis=1)[:, :count]

    def _in_spreads(self, x: Array) -> Array:
        return (x - self._center) / self._spread

    @staticmethod
    def _distances(one: Array, other: Array) -> Array:
        """Return squared distances, (rows, donors), ties in the order of a fixed permutation."""
        squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2.0 * one @ other.T
        # Where nothing predicts the absent inputs, all are equally near: any donors will do.
        ties = np.random.default_rng(0).random(len(other))
        return np.asarray(np.maximum(squares, 0.0) + 1e-9 * ties)

    def beyond(
        self, predict: Callable[[Array], Distribution], x: Array, limits: SoftClip
    ) -> Distribution:
        """Predict rows, more widely where inputs are beyond the training rows.

        The mean stays. To the covariance, w E (μ(x′) − μ(x))(μ(x′) − μ(x))ᵀ is added, x′ with the
        values of similar training rows in place of the inputs that are beyond; w = 1 − exp(−δ²/2),
        δ their distance from the range in standard deviations.

        Args:
            predict: function from inputs (n, features) to a distribution per row.
            x: (n, features).
            limits: the range of the inputs in training.

        """
        answer = predict(x)
        distance = limits.beyond(x)
        rows = np.flatnonzero(distance.max(axis=1, initial=0.0) > NEAR)
        if not len(rows) or answer.event_size > MOST_TARGETS:
            return answer
        parts = [
            self._widened(predict, answer[part], x[part], distance[part])
            for part in np.array_split(rows, -(-len(rows) // AT_ONCE))
        ]
        return _with(answer, rows, type(parts[0]).concatenate(parts))

    def _widened(
        self, predict: Callable[[Array], Distribution], own: Any, x: Array, distance: Array
    ) -> Any:
        filled = self.draws(x, distance > 0.0).astype(x.dtype)
        means = predict(filled.reshape(-1, x.shape[1])).center.reshape(len(filled), len(x), -1)
        weight = 1.0 - np.exp(-0.5 * (distance**2).sum(axis=1))
        shifts = np.sqrt(weight / len(means))[:, None] * (means - own.center)
        return own.widened(shifts)

    def predict(
        self, predict: Callable[[Array], Distribution], x: Array, absent: np.ndarray
    ) -> Distribution:
        """Predict rows, those that lack inputs by the mean and covariance over the donors' values.

        Args:
            predict: function from complete inputs (n, features) to a distribution per row.
            x: (n, features).
            absent: (n, features), whether an input is absent.

        """
        lacking = absent.any(axis=1)
        if not lacking.any():
            return predict(x)
        filled = self.draws(x[lacking], absent[lacking]).astype(x.dtype)
        drawn = predict(filled.reshape(-1, x.shape[1]))
        n = int(lacking.sum())
        parts = [drawn[i * n : (i + 1) * n] for i in range(len(filled))]
        return _with(predict(x), np.flatnonzero(lacking), averaged(parts))


def predict_beyond(members: Sequence[Member], x: Any, donors: Donors | None) -> Distribution:
    """Predict rows by all members, more widely where inputs are beyond the training rows.

    Without donors, or a layer that knows the range of the inputs, as in what 0.1.0 saved, they are
    not widened.
    """

    def predict(rows: Array) -> Distribution:
        return predict_distribution(members, rows)

    limits = members[0].limits
    return predict(x) if donors is None or limits is None else donors.beyond(predict, x, limits)


def _with(answer: Distribution, rows: np.ndarray, others: Any) -> Distribution:
    """Return distributions with others for some rows."""
    kept = np.delete(np.arange(len(answer)), rows)
    if not len(kept):
        joined: Distribution = others
        return joined
    joined = type(others).concatenate([answer[kept], others])
    return joined[np.argsort(np.concatenate([kept, rows]))]
