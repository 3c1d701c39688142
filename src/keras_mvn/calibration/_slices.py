"""Parts of the data in which a model is overconfident or underconfident."""

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
    """A subset of rows and their dispersion relative to the predictions.

    Args:
        name: str, description of the subset.
        rows: int, number of rows.
        dispersion: Σ q / Σ (observed targets); 1 is expected, above 1 is overconfident.
        p_value: two-sided p-value of Σ q, which is χ² if the rows are calibrated.
        adjusted_p_value: p-value corrected for the number of slices examined (Holm).
        score: log dispersion in units of its standard deviation, √(2/Σ (observed targets)); slices
            are ranked by its absolute value.

    """

    name: str
    rows: int
    dispersion: float
    p_value: float
    adjusted_p_value: float
    score: float

    @property
    def temperature(self) -> float:
        """The factor on standard deviations that would correct these rows."""
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
    """Return slices, given names and boolean masks (n,), the one that deviates most first."""
    members = [(name, member & (dof > 0)) for name, member in named]
    members = [(name, member) for name, member in members if member.any()]
    if not members:
        return ()
    totals = np.array([squares[member].sum() for _, member in members])
    counts = np.array([dof[member].sum() for _, member in members])
    p_values = _hypotheses.two_sided_chi_square(totals, counts)
    with np.errstate(divide="ignore"):  # −inf if all predictions are exact
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
    """Return columns by name, from a data frame, a mapping or an array (rows, features).

    Raises:
        ValueError: a column does not have this number of rows.

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
                f"features: {name!r} has shape {column.shape}; there are {rows} rows; pass one "
                "number or name for each."
            )
    return columns


def _is_blank(column: np.ndarray) -> np.ndarray:
    """Return a mask of the None, NaN and blank values of a column of names."""
    return np.array([v is None or v != v or not str(v).strip() for v in column.tolist()], bool)


def quantile_bins(name: str, column: np.ndarray, bins: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield named masks: quantile bins of numbers or dates, single values if there are few.

    A number shared by many rows, often zero, gets its own slice.
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
    # Edges are values of the column: infinite ones cannot be interpolated.
    levels = np.linspace(0.0, 1.0, count + 1)
    edges = np.unique(np.quantile(numbers[rest], levels, method="inverted_cdf"))
    edges = np.repeat(edges, 2) if len(edges) == 1 else edges
    # Right-closed bins; the first includes the smallest value.
    bin_of = np.clip(np.searchsorted(edges, numbers, side="left"), 1, len(edges) - 1)
    for index in range(1, len(edges)):
        low, high = edges[index - 1], edges[index]
        bracket = "[" if index == 1 else "("
        without = [shown(value, 12) for value in frequent if low < value < high]
        but = f" but {', '.join(without)}" if without else ""
        where = f"{bracket}{shown(low, 4)}, {shown(high, 4)}]{but}"
        yield f"{name} in {where}", rest & (bin_of == index)


def _as_numbers(column: np.ndarray) -> tuple[Array | None, Callable[[Any, int], str]]:
    """Return an ordered column as numbers, NaN where missing, and a function that formats one."""
    if np.issubdtype(column.dtype, np.datetime64):
        seconds = column.astype("datetime64[s]")
        numbers = np.where(np.isnat(seconds), np.nan, seconds.astype(np.int64).astype(np.float64))
        return numbers, lambda second, _: str(np.datetime64(int(second), "s"))
    if np.issubdtype(column.dtype, np.number) and not np.issubdtype(column.dtype, np.bool_):
        return column.astype(np.float64), lambda number, digits: f"{number:.{digits}g}"
    return None, lambda label, _: str(label)
