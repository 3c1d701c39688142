"""Correlations between targets, and how they change with the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.calibration._slices import quantile_bins
from keras_mvn.distributions import Distribution
from keras_mvn.report._format import signed

__all__ = ["SHOWN", "Bin", "Dependence", "Pair", "dependence_of", "few_values"]

SHOWN = 12
"""Maximum number of targets in the matrix and in the page's explorer."""

STRONGEST = 3
"""Number of pairs examined more closely; the pair that changes most may be added to them."""

BINS = 4
"""Number of bins into which an input is divided."""

FEWEST = 8
"""Minimum number of rows in a bin that is shown."""

CATEGORIES = 20
"""Number of categories of an input beyond which its parts are too small to be examined."""

NUMBERS = 20_000_000
"""Numbers in memory at a time; if there are more, correlations use evenly spaced rows."""

SIGNIFICANT = 0.01
"""p-value below which bins differ (analysis of variance), corrected for the number of inputs."""

VARIES = 1e-6
"""Range of a correlation below which it is constant, up to rounding."""

NOTICEABLE = 0.1
"""Difference of a correlation between bins that counts as a change."""


@final
@dataclass(frozen=True)
class Bin:
    """The predicted and the empirical correlation in the rows of one bin of an input."""

    label: str
    rows: int
    predicted: float
    found: float
    found_low: float
    found_high: float


@final
@dataclass(frozen=True)
class Pair:
    """Two targets, the input that changes their correlation most, and how it changes."""

    names: tuple[str, str]
    mean: float
    low: float
    high: float
    """`low` and `high` are the 5 % and 95 % quantiles over the rows."""
    driver: str | None
    bins: tuple[Bin, ...]
    inputs: int
    """Number of inputs examined: those with enough rows in more than one bin."""

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        a, b = self.names
        text = f"{a} and {b}: correlation of the errors {signed(self.mean)} on average"
        if self.high - self.low < 0.005:
            return text + ", the same in all rows."
        text += f", between {signed(self.low)} and {signed(self.high)} in nine out of ten rows."
        if self.driver is None:
            return text + (" No single input changes it beyond chance." if self.inputs else "")
        least, most = (f(self.bins, key=lambda one: one.predicted) for f in (min, max))
        change = (
            f"{signed(least.predicted)} ({self.driver} {least.label}) to "
            f"{signed(most.predicted)} ({most.label})"
        )
        if most.predicted - least.predicted < NOTICEABLE:
            return (
                f"{text} No single input changes it much; the largest change is with "
                f"{self.driver}: from {change}."
            )
        return f"{text} {self.driver} changes it most: from {change}."


@final
@dataclass(frozen=True, eq=False)
class Dependence:
    """Correlations of the errors, averaged over rows, of at most `SHOWN` targets."""

    targets: np.ndarray
    """Their positions among all targets, in the same order."""
    names: tuple[str, ...]
    mean: Array
    pairs: tuple[Pair, ...]


def dependence_of(normal: Distribution, y: Array, x: Mapping[str, np.ndarray]) -> Dependence:
    """Find the most correlated targets, their pairs, and the inputs that change them."""
    targets = _most_correlated(normal)
    chosen = normal.marginal(targets)
    step = _step(len(chosen), len(targets))
    rows = slice(None, None, step)
    errors = ((y[:, targets] - chosen.mean) / chosen.stddev)[rows]
    correlation = chosen[rows].correlation
    columns = {name: column[rows] for name, column in x.items() if few_values(column)}
    names = tuple(chosen.target_names or ())
    mean = correlation.mean(axis=0)
    changes = _changes(correlation, columns)
    pairs = tuple(
        _pair(i, j, names, correlation[:, i, j], errors[:, [i, j]], changes, columns)
        for i, j in _closer_look(mean, correlation.std(axis=0))
    )
    return Dependence(targets, names, mean, pairs)


def few_values(column: np.ndarray) -> bool:
    """Whether the parts of a column are worth examining: numbers, or not too many categories."""
    return np.issubdtype(column.dtype, np.number) or (
        len(np.unique(column.astype(str))) <= CATEGORIES
    )


def _step(rows: int, d: int) -> int:
    return max(1, -(-rows * d * d // NUMBERS))


def _most_correlated(normal: Distribution) -> np.ndarray:
    """Positions of `SHOWN` targets, from the most strongly correlated pairs."""
    d = normal.event_size
    if d <= SHOWN:
        return np.arange(d)
    total = np.zeros((d, d))
    some = normal[:: _step(len(normal), d)]
    size = max(1, NUMBERS // (d * d))
    for start in range(0, len(some), size):
        total += some[start : start + size].correlation.sum(axis=0)
    chosen: list[int] = []
    for pair in _strongest_first(total):
        chosen += [i for i in pair if i not in chosen]
        if len(chosen) >= SHOWN:
            break
    return np.sort(chosen[:SHOWN])


def _strongest_first(matrix: Array) -> list[tuple[int, int]]:
    i, j = np.triu_indices(len(matrix), 1)
    order = np.argsort(-np.abs(matrix[i, j]), kind="stable")[: SHOWN * SHOWN]
    return [(int(i[k]), int(j[k])) for k in order]


def _closer_look(mean: Array, scatter: Array) -> list[tuple[int, int]]:
    pairs = _strongest_first(mean)[:STRONGEST]
    if len(mean) > 1:
        changing = _strongest_first(scatter)[0]
        if changing not in pairs and scatter[changing] > 0.5 * NOTICEABLE:
            pairs.append(changing)
    return pairs


def _parts(name: str, column: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The input's bins with enough rows, labeled without its name."""
    parts = [
        (label.removeprefix(name).strip(), member)
        for label, member in quantile_bins(name, column, BINS)
    ]
    return [(label, member) for label, member in parts if member.sum() >= FEWEST]


def _changes(correlation: Array, columns: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Input → standard deviation between its bins of each pair's mean correlation: (d, d)."""
    changes = {}
    for name, column in columns.items():
        members = [member for _, member in _parts(name, column)]
        if len(members) > 1:
            means = np.stack([correlation[member].mean(axis=0) for member in members])
            share = np.array([member.sum() for member in members])[:, None, None]
            share = share / share.sum()
            center = np.sum(share * means, axis=0)
            changes[name] = np.sqrt(np.sum(share * (means - center) ** 2, axis=0))
    return changes


def _pair(
    i: int,
    j: int,
    names: tuple[str, ...],
    correlation: Array,
    errors: Array,
    changes: dict[str, Array],
    columns: Mapping[str, np.ndarray],
) -> Pair:
    low, high = np.quantile(correlation, [0.05, 0.95])
    driver = max(changes, key=lambda name: float(changes[name][i, j]), default=None)
    bins: tuple[Bin, ...] = ()
    if driver is not None:
        parts = _parts(driver, columns[driver])
        if _p_value([correlation[member] for _, member in parts]) * len(changes) < SIGNIFICANT:
            bins = tuple(_bin(label, correlation[rows], errors[rows]) for label, rows in parts)
    return Pair(
        (names[i], names[j]),
        float(correlation.mean()),
        float(low),
        float(high),
        driver if bins else None,
        bins,
        len(changes),
    )


def _p_value(groups: list[Array]) -> float:
    """p-value of a one-way analysis of variance; 1 if nothing varies."""
    if np.ptp(np.concatenate(groups)) < VARIES:
        return 1.0
    if max(float(np.ptp(group)) for group in groups) < VARIES:
        return 0.0
    return float(require("scipy.stats", "the report").f_oneway(*groups).pvalue)


def _bin(label: str, correlation: Array, errors: Array) -> Bin:
    return Bin(label, len(correlation), float(correlation.mean()), *_found(errors))


def _found(errors: Array) -> tuple[float, float, float]:
    """Correlation of standardized errors and its 95 % interval by Fisher's z."""
    both = errors[~np.isnan(errors).any(axis=1)]
    if len(both) < 4 or not (both.std(axis=0) > 0).all():
        return float("nan"), float("nan"), float("nan")
    r = float(np.clip(np.asarray(np.corrcoef(both.T))[0, 1], -1 + 1e-12, 1 - 1e-12))
    half_width = 1.96 / np.sqrt(len(both) - 3)
    low, high = np.tanh(np.arctanh(r) + np.array([-half_width, half_width]))
    return r, float(low), float(high)
