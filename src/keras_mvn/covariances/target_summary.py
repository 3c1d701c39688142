"""What `adapt` needs to know of targets; summaries of the parts of a data set merge."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, NamedTuple, Self, final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.fences import Fences, fences
from keras_mvn._core.types import Array
from keras_mvn.covariances._pair_moments import PairMoments
from keras_mvn.covariances._streaming import StreamingMoments
from keras_mvn.covariances._target_batches import target_batches
from keras_mvn.covariances._thinned_rows import ThinnedRows

__all__ = ["Measured", "TargetSummary"]


class Measured(NamedTuple):
    """Moments of all rows, with the correlation or the leading directions."""

    seen: Array
    mean: Array
    variance: Array
    rows: int
    correlation: Array | None
    directions: Array
    with_gaps: bool


@final
class TargetSummary:
    """Sums, extremes and a sample of targets, from which a head adapts without the rows.

    For data in pieces: summarize each where it lies (a map), merge the summaries (a reduce), and
    pass the result to `MultivariateNormalHead.adapt`. Summaries are picklable, and merging them in
    any order gives the moments of all rows up to rounding (1e-12), gaps included. Leading
    directions (structures of low rank) are exact while there are no more than `rank`.

    Single values far from all others are found in an even sample of up to 4 000 000 numbers (all
    rows, if they are fewer) and the smallest and largest value of each target, so that one glitch
    in any number of rows is found; moments are then those of the sample without it, whose means
    are known to 1/√m of a standard deviation, m ≥ 1000 the rows of the sample.

    Args:
        event_size: int, number of targets d.
        rank: None for structures that need the covariance; otherwise the number of leading
            directions. `MultivariateNormalHead.summarize` chooses what its structure needs.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> parts = [rng.normal(size=(50, 2)), rng.normal(3.0, 1.0, size=(20, 2))]
    >>> merged = TargetSummary.merged(TargetSummary(2).update(part) for part in parts)
    >>> merged.rows, bool(np.allclose(merged.measured.mean, np.concatenate(parts).mean(axis=0)))
    (70, True)

    """

    def __init__(self, event_size: int, rank: int | None = None) -> None:
        self.event_size = whole(event_size, "event_size", "the number of targets", 1)
        self.rank = rank
        self._pairs = PairMoments(event_size) if rank is None else None
        self._streamed = None if rank is None else StreamingMoments(event_size, rank)
        self._sample = ThinnedRows(event_size)
        self._ends = np.full((2, event_size), np.nan)
        self._merged = False

    def update(self, data: Any) -> Self:
        """Add targets, in any form that `adapt` takes; return the summary.

        Raises:
            ValueError: the number of targets is wrong, or values are infinite.

        """
        for y in target_batches(data, self.event_size):
            self._sample.update(y)
            if self._pairs is not None:
                self._pairs.update(y)
            if self._streamed is not None:
                self._streamed.update(y)
            self._widen(y)
        return self

    def merge(self, other: TargetSummary) -> Self:
        """Add the rows of another summary, which stays as it is; return this one.

        Raises:
            ValueError: the other one has another number of targets or another rank.

        """
        if not isinstance(other, TargetSummary):
            raise TypeError(f"Expected a TargetSummary, received {type(other).__name__}.")
        other.checked(self.event_size, self.rank)
        self._sample.merge(other._sample)
        if self._pairs is not None and other._pairs is not None:
            self._pairs.merge(other._pairs)
        if self._streamed is not None and other._streamed is not None:
            self._streamed.merge(other._streamed)
        self._widen(other._ends)
        self._merged = True
        return self

    @classmethod
    def merged(cls, summaries: Iterable[TargetSummary]) -> TargetSummary:
        """Return the summary of all rows of several summaries, which stay as they are.

        Raises:
            ValueError: there is none, or they do not fit each other.

        """
        found: TargetSummary | None = None
        for summary in summaries:
            found = copy.deepcopy(summary) if found is None else found.merge(summary)
        if found is None:
            raise ValueError("TargetSummary.merged received no summaries.")
        return found

    def checked(self, event_size: int, rank: int | None) -> Self:
        """Return the summary, if it is of so many targets and of this rank.

        Raises:
            ValueError: it is not.

        """
        if (self.event_size, self.rank) != (event_size, rank):
            raise ValueError(
                f"The summary has event_size={self.event_size} and rank={self.rank}; expected "
                f"event_size={event_size} and rank={rank}. Make it by `summarize` of a head with "
                "the same covariance structure."
            )
        return self

    @property
    def rows(self) -> int:
        """The number of rows, including those with gaps."""
        return self._sample.seen

    @property
    def sample(self) -> Array:
        """An even sample of the rows: (m, d), NaN where missing; all of them if they are few."""
        return self._sample.rows

    @property
    def measured(self) -> Measured:
        """The moments of all rows."""
        if self._pairs is not None:
            pairs, none = self._pairs, np.zeros((self.event_size, 0))
            rows = int(pairs.seen.max())
            return Measured(
                pairs.seen, pairs.mean, pairs.variance, rows, pairs.correlation, none,
                pairs.with_gaps,
            )  # fmt: skip
        assert self._streamed is not None
        found = self._streamed
        rows = int(found.count.max())
        return Measured(
            found.count, found.mean, found.variance, rows, None, found.directions, with_gaps=False
        )

    def with_extremes(self) -> Array:
        """Return the sample and, if it lacks rows, the smallest and the largest values: (m, d)."""
        whole = self._sample.step == 1
        return self.sample if whole else np.concatenate([self.sample, self._ends])

    def fences(self) -> Fences:
        """Return the fences beyond which single values are far from all others."""
        return fences(self.with_extremes())

    def place(self, index: int) -> str:
        """Return where a row of `with_extremes` is, for messages."""
        return f"row {index}" if self._sample.step == 1 and not self._merged else "a row"

    def _widen(self, y: Array) -> None:
        """Add rows to the smallest and largest values, NaN for targets that were never seen."""
        every = np.concatenate([self._ends, y])
        self._ends = np.stack([np.fmin.reduce(every, axis=0), np.fmax.reduce(every, axis=0)])
