"""Guaranteed coverage for the questions people ask: some targets, sums, the rest given some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.checks import probability
from keras_mvn._core.targets import in_order, observed_targets, positions, target_names_of
from keras_mvn._core.types import Array
from keras_mvn.calibration._quantile import conformal_quantile, warn_if_unbounded
from keras_mvn.calibration._rows import matched_rows
from keras_mvn.distributions.base import Distribution

__all__ = ["ConformalPredictor", "ConformalRegion"]


@final
class ConformalPredictor:
    """Calibration rows kept as they are, so that every question gets its own guarantee.

    A conformal region for all targets guarantees nothing for two of them, for their sum, or for one
    given the other. `marginal`, `affine`, `sum`, `difference` and `condition` return a predictor
    for that question: the calibration predictions are asked the same question, and the values that
    were observed answer it. For any kind of distribution and ensembles; the score is the squared
    Mahalanobis distance for elliptical ones, and the probability of a higher density for others
    (HPD-split).

    Rows with gaps take part where the question concerns what they have: of a row in which some
    targets will be observed, the region of those is calibrated by all rows that observed at least
    these. With n such rows, level ≤ P(y inside) ≤ level + 1/(n + 1) (the upper bound for scores
    without ties), if these rows and the new one are exchangeable. This is so if rows are, and
    whether a value is missing depends on neither the values nor how far they are from the
    predictions. It holds on average over rows and calibration sets, not for each x.

    Use `fit`.

    Source: Vovk, Gammerman & Shafer, "Algorithmic learning in a random world", 2005; Izbicki,
    Shimizu & Stern, "CD-split and HPD-split", JMLR 23 (2022), for densities; Braun et al.,
    "Multivariate standardized residuals for conformal prediction", 2026, for revealed and projected
    targets.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> def predicted(rows):
    ...     return MultivariateNormal(np.zeros((rows, 2)), covariance=np.stack([np.eye(2)] * rows))
    >>> truth = predicted(999).rescale(2.0)  # twice as wide as predicted
    >>> predictor = ConformalPredictor.fit(predicted(999), truth.sample(seed=0))
    >>> region = predictor.sum().region(predicted(999).sum(), level=0.9)
    >>> region.contains(truth.sample(seed=1).sum(axis=1, keepdims=True)).mean().round(2)
    np.float64(0.91)

    """

    def __init__(self, answer: Distribution, y: Array) -> None:
        self._answer, self._y = answer, y

    @classmethod
    def fit(cls, answer: Distribution, y: Any) -> Self:
        """Keep predictions for rows that were not used for training, and what was observed.

        Args:
            answer: predictions for the calibration rows, of any kind.
            y: (..., d), observed values; NaN where missing.

        Raises:
            ValueError: there are no rows, shapes do not match, values are infinite, or a target is
                never observed.

        """
        matched_rows(answer, y, "marginalize", "ConformalPredictor.fit")
        values = np.asarray(in_order(y, answer.target_names), np.float64)
        return cls(answer.flatten(), values.reshape(-1, answer.event_size))

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets of this question."""
        return tuple(target_names_of(self._answer.target_names, self._answer.event_size))

    def rows(self, targets: Any = None) -> int:
        """Return the number of calibration rows in which these targets were observed; None: all."""
        return int(self._observed(targets).sum())

    def marginal(self, targets: Any) -> Self:
        """Return the predictor for some of the targets, by name or index, in this order."""
        index = positions(targets, self._answer.target_names, self._answer.event_size)
        return self._of_rows(self._answer.marginal(index), self._y[:, index])

    def affine(
        self, matrix: Any, offset: Any = 0.0, target_names: Sequence[str] | None = None
    ) -> Self:
        """Return the predictor for linear functions A y + b, as in `Distribution.affine`.

        Rows take part in which all targets were observed that the functions use.
        """
        functions = np.atleast_2d(np.asarray(matrix, np.float64))
        used = (functions != 0.0).any(axis=0)
        filled = np.where(used, self._y, 0.0)
        values = filled @ functions.T + offset
        return self._of_rows(self._answer.affine(matrix, offset, target_names), values)

    def sum(self, targets: Any = None, name: str = "sum") -> Self:
        """Return the predictor for the sum of all or some targets."""
        chosen = slice(None) if targets is None else targets
        index = positions(chosen, self._answer.target_names, self._answer.event_size)
        weights = np.zeros(self._answer.event_size)
        weights[index] = 1.0
        return self.affine(weights, target_names=[name])

    def difference(self, target: Any, other: Any) -> Self:
        """Return the predictor for `target − other`."""
        names, d = self._answer.target_names, self._answer.event_size
        weights = np.zeros(d)
        weights[positions([target, other], names, d)] = 1.0, -1.0
        label = target_names_of(names, d)
        first, second = positions([target, other], names, d)
        return self.affine(weights, target_names=[f"{label[first]} - {label[second]}"])

    def condition(self, targets: Any) -> Self:
        """Return the predictor for the other targets, given that these are measured exactly.

        For new rows, `region(answer.condition(measured))`. Rows take part in which these targets
        were observed.
        """
        names, d = self._answer.target_names, self._answer.event_size
        index = positions(targets, names, d)
        seen = self._observed(index)
        if not seen.any():
            raise ValueError(f"condition: no calibration row has values of all of {targets!r}.")
        y = self._y[seen]
        given = self._answer[np.flatnonzero(seen)].condition({int(j): y[:, j] for j in index})
        return self._of_rows(given, y[:, np.setdiff1d(np.arange(d), index)])

    def region(self, answer: Distribution, level: float = 0.9) -> ConformalRegion:
        """Return the regions for predictions of new rows, which answer the same question.

        Raises:
            ValueError: the predictions have other targets, or level is not between 0 and 1.

        Warns:
            UserWarning: there are too few rows for a bounded region.

        """
        self._answer[:1].check_same_targets(answer)
        found = self.threshold(probability(level, "level"))
        return ConformalRegion(self, answer, float(level), found)

    def threshold(self, level: float, targets: Any = None) -> float:
        """Return the nonconformity up to which new rows are inside; infinite for too few rows.

        Args:
            level: coverage.
            targets: those that will be observed; None for all.

        """
        index = self._index(targets)
        seen = np.flatnonzero(self._observed(index))
        answer, y = self._answer, self._y
        if len(index) < answer.event_size:
            answer, y = answer.marginal(index), y[:, index]
        scores = np.zeros(0) if not len(seen) else answer[seen].nonconformity(y[seen])
        found = conformal_quantile(scores, level)
        warn_if_unbounded(found, len(seen), level, "ConformalPredictor")
        return found

    def _index(self, targets: Any) -> np.ndarray:
        chosen = slice(None) if targets is None else targets
        return positions(chosen, self._answer.target_names, self._answer.event_size)

    def _observed(self, targets: Any) -> np.ndarray:
        return np.asarray(~np.isnan(self._y[:, self._index(targets)]).any(axis=1))

    def _of_rows(self, answer: Distribution, y: Array) -> Self:
        """Return the predictor for a question, of the rows that say something of its targets."""
        seen = np.flatnonzero(~np.isnan(y).all(axis=1))
        return type(self)(answer[seen], y[seen])

    def __repr__(self) -> str:
        return f"ConformalPredictor(rows={len(self._y)}, targets={list(self.target_names)})"


@final
class ConformalRegion:
    """Regions that contain a new row with a guaranteed probability, one for each prediction.

    Made by `ConformalPredictor.region`.
    """

    def __init__(
        self, predictor: ConformalPredictor, answer: Distribution, level: float, threshold: float
    ) -> None:
        self._predictor, self.distribution = predictor, answer
        self.level, self.threshold = level, threshold

    def contains(self, y: Any) -> np.ndarray:
        """Whether y (..., d) is inside: (...), boolean.

        Of a row with missing values (NaN), whether what was observed is inside the region of these
        targets, which has a threshold of its own; a row with nothing observed is inside.

        Raises:
            ValueError: y does not fit the predictions, or is infinite.

        """
        values, observed = observed_targets(y, "marginalize", self.distribution.target_names)
        scores = self.distribution.nonconformity(
            values if observed is None else np.where(observed > 0, values, np.nan), "marginalize"
        )
        if observed is None:
            return np.asarray(scores <= self.threshold)
        seen = np.broadcast_to(observed > 0, values.shape).reshape(-1, values.shape[-1])
        flat, inside = np.reshape(scores, -1), np.ones(seen.shape[0], bool)
        patterns, which = np.unique(seen, axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            if pattern.any():
                rows = which.reshape(-1) == k
                limit = self._predictor.threshold(self.level, np.flatnonzero(pattern))
                inside[rows] = flat[rows] <= limit
        return inside.reshape(np.shape(scores))

    @property
    def shape(self) -> Any:
        """The regions as `Ellipsoid`, or `HighestDensityRegion`, with `volume`, `axes`, `outline`.

        For an infinite threshold, one that ends where float64 or the draws do.
        """
        return self.distribution.region_up_to(self.threshold)

    @property
    def log_volume(self) -> Array:
        """The log-volumes, in log units of y: (...); infinite for too few calibration rows."""
        if math.isinf(self.threshold):
            return np.full(self.distribution.batch_shape, np.inf)
        return np.asarray(self.shape.log_volume)

    @property
    def volume(self) -> Array:
        """The volumes exp(log_volume): (...)."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self.log_volume)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper ends of the smallest enclosing boxes, of ellipsoids: (..., d) each."""
        found: tuple[Array, Array] = self.shape.bounds()
        return found

    def __repr__(self) -> str:
        return (
            f"ConformalRegion(level={self.level:g}, batch_shape={self.distribution.batch_shape}, "
            f"event_size={self.distribution.event_size})"
        )
