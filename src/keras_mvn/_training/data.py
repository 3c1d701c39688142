"""Tables accessed by row number: splits, batches and moments, without a copy of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import keras
import numpy as np

from keras_mvn._core.fences import fences
from keras_mvn._core.types import Array

__all__ = [
    "Batches",
    "Material",
    "Moments",
    "Part",
    "Split",
    "Table",
    "divide",
    "input_range",
    "moments",
    "sample",
    "thinned",
]

PART = 1 << 16
"""Rows read at a time when all rows are read."""

SAMPLED = 4_000_000
"""Numbers from which fences are found."""

LARGEST_HELD_OUT = 50_000
"""Maximum rows: the temperature of one target is then known to 0.3 %; the rest can train."""


class Split(NamedTuple):
    """Row numbers of the parts of a table, each ascending."""

    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray


@final
@dataclass(frozen=True)
class Table:
    """Some rows of arrays that may be larger than memory (`numpy.memmap`)."""

    x: Any
    """(n, features), a NumPy array."""
    y: Any
    """(n, d), NaN where missing."""
    weight: Array | None
    """(n,), or None."""
    rows: np.ndarray
    """Numbers of the rows that belong to this part, ascending."""
    measured: Any = None
    """(n, d), the targets as they were measured, if y is what another model leaves of them."""

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, rows: np.ndarray) -> Table:
        """Return a table of other rows of the same arrays."""
        return replace(self, rows=rows)

    def batch(self, rows: np.ndarray) -> tuple[Any, ...]:
        """Return (x, y) or (x, y, weight) of these rows, in Keras' float type."""
        float_type = keras.config.floatx()
        x, y = (np.asarray(a[rows], dtype=float_type) for a in (self.x, self.y))
        return (x, y) if self.weight is None else (x, y, self.weight[rows].astype(float_type))

    def weights(self, rows: np.ndarray) -> Array:
        """Return the weights of these rows, 1 if there are none."""
        return np.ones(len(rows)) if self.weight is None else self.weight[rows]

    def parts(self) -> Iterator[tuple[Array, Array]]:
        """Yield (x, y) of all rows of this part in float64, some rows at a time."""
        for start in range(0, len(self.rows), PART):
            rows = self.rows[start : start + PART]
            yield np.asarray(self.x[rows], np.float64), np.asarray(self.y[rows], np.float64)

    def targets(self) -> Iterator[Array]:
        """Yield y of all rows of this part in float64, some rows at a time."""
        return self._by_part(self.y)

    def measured_targets(self) -> Iterator[Array] | None:
        """Yield `measured` of all rows likewise; None if there is nothing but y."""
        return None if self.measured is None else self._by_part(self.measured)

    def _by_part(self, values: Any) -> Iterator[Array]:
        for start in range(0, len(self.rows), PART):
            yield np.asarray(values[self.rows[start : start + PART]], np.float64)

    @property
    def has_gaps(self) -> bool:
        """Whether y has missing values."""
        return any(np.isnan(y).any() for y in self.targets())


@final
@dataclass(frozen=True)
class Part:
    """The rows of one network: those it learns from, and those that it never sees."""

    training: Table
    validation: Table | None
    """Rows for early stopping, or None."""
    held_out: Table | None
    """Rows on which the network is compared with others, all of `validation` among them."""
    residuals: Array | None = None
    """Errors of another model on the training rows, as in `MultivariateNormalHead.adapt`."""

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of rows for training and for early stopping."""
        return len(self.training), 0 if self.validation is None else len(self.validation)


class Material(NamedTuple):
    """The rows of all networks of one kind."""

    parts: list[Part]
    """The rows of each network."""
    inputs: Moments
    """Moments and range of the inputs."""


@final
class Batches(keras.utils.PyDataset):
    """Batches of a table for `fit(shuffle=False)`, all of one size for one compiled program.

    With a seed, the order of rows depends on (seed, epoch) alone, so that training resumes after a
    crash as if nothing had happened; rows that do not fill a batch are left out in that epoch.
    Without a seed, all rows are used in order.

    Args:
        table: the rows.
        size: rows per batch.
        seed: seed of the order, or None.

    """

    def __init__(self, table: Table, size: int, seed: int | None = None) -> None:
        super().__init__()
        self._table, self._seed = table, seed
        self._size = min(size, len(table))
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the order of rows in this epoch."""
        self._order = self._table.rows
        if self._seed is not None:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._order)

    def __len__(self) -> int:
        whole, rest = divmod(len(self._order), self._size)
        return whole + bool(rest and self._seed is None)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = self._order[index * self._size : (index + 1) * self._size]
        return self._table.batch(np.sort(rows))  # ascending: a file is read in one direction


class Moments(NamedTuple):
    """Mean, variance and range of each column, of the values within its fences."""

    mean: Array
    variance: Array
    lower: Array
    upper: Array
    binary: np.ndarray
    """Whether a column has at most two values: an indicator, or a category."""


def moments(table: Table, fenced: bool = True) -> Moments:
    """Return moments and range of each column of x, with variance 1 for constant columns.

    If `fenced`, single values that are far from all others count as the nearest of the others.

    Raises:
        ValueError: x contains numbers that float32 cannot represent.

    Source: the update of Chan, Golub & LeVeque, "Algorithms for computing the sample variance",
    The American Statistician 37 (1983).

    """
    lower, upper = input_range(table, fenced)
    count, mean, square = 0, 0.0, 0.0
    binary = np.ones(len(lower), bool)
    for x, _ in table.parts():
        x = np.clip(x, lower, upper)
        binary &= ((x == lower) | (x == upper)).all(axis=0)
        n, m = len(x), x.mean(axis=0)
        delta = m - mean
        square = square + ((x - m) ** 2).sum(axis=0) + delta**2 * (count * n / (count + n))
        count, mean = count + n, mean + delta * (n / (count + n))
    variance = np.asarray(square) / count
    # Below the second bound, all values are equal in float32.
    constant = (variance == 0) | (variance < (1e-7 * np.asarray(mean)) ** 2)
    return Moments(np.asarray(mean), np.where(constant, 1.0, variance), lower, upper, binary)


def input_range(table: Table, fenced: bool = True) -> tuple[Array, Array]:
    """Return the smallest and the largest of each column of x: (k,), (k,); if so, within fences.

    Raises:
        ValueError: x contains numbers that float32 cannot represent.

    """
    found = fences(sample(table.x, table.rows)[1] if fenced else table.x[:0], codes=True)
    lower, upper = np.full(table.x.shape[1], np.inf), np.full(table.x.shape[1], -np.inf)
    for x, _ in table.parts():
        _refuse_beyond_float32(x)
        beyond = found.beyond(x)
        lower = np.minimum(lower, np.where(beyond, np.inf, x).min(axis=0))
        upper = np.maximum(upper, np.where(beyond, -np.inf, x).max(axis=0))
    return lower, upper


def sample(values: Any, rows: np.ndarray) -> tuple[np.ndarray, Array]:
    """Return these rows, evenly thinned if too many: their numbers, and float64 values (m, k)."""
    kept = thinned(rows, SAMPLED, values.shape[1])
    return kept, np.asarray(values[kept], np.float64)


def thinned(rows: np.ndarray, most: int, width: int = 1) -> np.ndarray:
    """Return evenly chosen rows, so few that at `width` numbers each there are about `most`."""
    return rows[:: max(1, -(-len(rows) * width // most))]


def _refuse_beyond_float32(x: Array) -> None:
    columns = np.flatnonzero((np.abs(x) > np.finfo(np.float32).max).any(axis=0))
    if len(columns):
        raise ValueError(
            f"X contains values beyond float32 (3.4e38) in columns {columns[:10].tolist()}. "
            "Rescale these columns."
        )


def divide(
    rows: np.ndarray,
    shares: tuple[float, float],
    smallest: tuple[int, int],
    seed: int,
    groups: Any = None,
) -> Split:
    """Split rows at random into training, validation and calibration.

    Args:
        rows: numbers of the rows.
        shares: fractions of validation and calibration rows; 0 for none.
        smallest: minimum number of rows in each of the two, unless that is more than a quarter of
            all rows: validation then has a quarter (but at least one row), calibration none.
        seed: seed of the split.
        groups: (len(rows),) labels; rows of a group stay together, and shares are fractions of the
            groups.

    """
    labels = np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(labels.max()) + 1
    validation = calibration = 0
    if shares[0] > 0:
        validation = _held_out(units, shares[0], smallest[0]) or max(1, units // 4)
    if shares[1] > 0:
        calibration = _held_out(units, shares[1], smallest[1])
    order = np.random.default_rng([seed, 1]).permutation(units)
    part_of = np.zeros(units, dtype=np.int8)
    part_of[order[:validation]] = 1
    part_of[order[validation : validation + calibration]] = 2
    parts = part_of[labels]
    return Split(*(np.sort(rows[parts == part]) for part in range(3)))


def _held_out(units: int, share: float, smallest: int) -> int:
    """Return how many units to hold out, 0 if `smallest` would be too large a share."""
    count = min(max(round(share * units), smallest), LARGEST_HELD_OUT)
    return count if count <= max(units // 4, round(share * units)) else 0
