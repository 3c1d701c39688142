"""Parts of the data in which a model claims too much or too little."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.checks import as_numpy
from keras_mvn._core.types import Array
from keras_mvn.calibration import _hypotheses

__all__ = ["Slice", "columns_of", "judged", "quantile_bins"]


@final
@dataclass(frozen=True)
class Slice:
    """Some rows, and how far they scatter compared with what was predicted for them.

    Args:
        name: which rows.
        rows: how many.
        dispersion: Σ q / Σ (observed targets), 1 expected; above: overconfident.
        p_value: of Σ q, which is χ² if the rows are calibrated; two-sided.
        adjusted_p_value: corrected for the number of slices looked at (Holm).
        score: log dispersion in its standard deviations, √(2/Σ (observed targets)); by its size
            slices are ranked.

    """

    name: str
    rows: int
    dispersion: float
    p_value: float
    adjusted_p_value: float
    score: float

    @property
    def temperature(self) -> float:
        """The factor on standard deviations that would mend these rows."""
        return float(np.sqrt(self.dispersion))

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.rows} rows scatter {self.temperature:.2f} times as far as "
            f"predicted (p {_shown(self.adjusted_p_value)})"
        )


def _shown(p_value: float) -> str:
    return f"= {p_value:.2g}" if p_value >= 1e-4 else "< 0.0001"


def judged(
    named: Sequence[tuple[str, np.ndarray]], squares: Array, dof: Array
) -> tuple[Slice, ...]:
    """The slices of these names and boolean rows (n,), the one that deviates most first."""
    members = [(name, member & (dof > 0)) for name, member in named]
    members = [(name, member) for name, member in members if member.any()]
    if not members:
        return ()
    totals = np.array([squares[member].sum() for _, member in members])
    counts = np.array([dof[member].sum() for _, member in members])
    p_values = _hypotheses.two_sided_chi_square(totals, counts)
    with np.errstate(divide="ignore"):  # predictions that all hit: −inf
        scores = np.log(totals / counts) * np.sqrt(0.5 * counts)
    slices = [
        Slice(name, int(member.sum()), *map(float, numbers))
        for (name, member), *numbers in zip(
            members,
            totals / counts,
            p_values,
            _hypotheses.holm(p_values),
            scores,
            strict=True,
        )
    ]
    return tuple(sorted(slices, key=lambda one: -abs(one.score)))


def columns_of(features: Any, rows: int) -> dict[str, np.ndarray]:
    """Columns by name, of a data frame, a mapping or an array (rows, features).

    Raises:
        ValueError: another number of rows.

    """
    if isinstance(features, Mapping) or hasattr(features, "columns"):
        names = list(features) if isinstance(features, Mapping) else list(features.columns)
        columns = {str(name): np.asarray(as_numpy(features[name])) for name in names}
    else:
        table = np.asarray(as_numpy(features))
        table = table[:, None] if table.ndim == 1 else table
        columns = {f"feature {i}": table[:, i] for i in range(table.shape[-1])}
    for name, column in columns.items():
        if column.shape != (rows,):
            raise ValueError(
                f"features: {name!r} has shape {column.shape}; there are {rows} rows, one number "
                "or name for each."
            )
    return columns


def _is_blank(column: np.ndarray) -> np.ndarray:
    """None, NaN and texts without a letter, among names."""
    return np.array([v is None or v != v or not str(v).strip() for v in column.tolist()], bool)


def quantile_bins(name: str, column: np.ndarray, bins: int) -> Iterator[tuple[str, np.ndarray]]:
    """Rows by value: equally many in each bin of a number or date, a slice for each of few values.

    A number that many rows share, zero often, is a slice of its own.
    """
    numbers, shown = _as_numbers(column)
    known = ~(_is_blank(column) if numbers is None else np.isnan(numbers))
    if not known.all():
        yield f"{name} is missing", ~known
    labels = column.astype(str) if numbers is None else numbers
    values, counts = np.unique(labels[known], return_counts=True)
    few = numbers is None or len(values) <= bins
    frequent = values if few else values[counts >= known.sum() / bins]
    for value in frequent:
        yield f"{name} = {shown(value, 12)}", known & (labels == value)
    if numbers is None or few:
        return
    rest = known & ~np.isin(numbers, frequent)
    count = max(1, round(bins * rest.sum() / known.sum()))
    # Edges that are values: between infinite ones there is nothing.
    levels = np.linspace(0.0, 1.0, count + 1)
    edges = np.unique(np.quantile(numbers[rest], levels, method="inverted_cdf"))
    edges = np.repeat(edges, 2) if len(edges) == 1 else edges
    # Right-closed bins; what equals the smallest value belongs to the first.
    bin_of = np.clip(np.searchsorted(edges, numbers, side="left"), 1, len(edges) - 1)
    for index in range(1, len(edges)):
        low, high = edges[index - 1], edges[index]
        bracket = "[" if index == 1 else "("
        without = [shown(value, 12) for value in frequent if low < value < high]
        but = f" but {', '.join(without)}" if without else ""
        where = f"{bracket}{shown(low, 4)}, {shown(high, 4)}]{but}"
        yield f"{name} in {where}", rest & (bin_of == index)


def _as_numbers(column: np.ndarray) -> tuple[Array | None, Callable[[Any, int], str]]:
    """A column that has an order as numbers, NaN where it is missing; how one of them is shown."""
    if np.issubdtype(column.dtype, np.datetime64):
        seconds = column.astype("datetime64[s]")
        numbers = np.where(np.isnat(seconds), np.nan, seconds.astype(np.int64).astype(np.float64))
        return numbers, lambda second, _: str(np.datetime64(int(second), "s"))
    if np.issubdtype(column.dtype, np.number) and not np.issubdtype(column.dtype, np.bool_):
        return column.astype(np.float64), lambda number, digits: f"{number:.{digits}g}"
    return None, lambda label, _: str(label)
