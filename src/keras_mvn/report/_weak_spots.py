"""Parts of the inputs, and individual rows, where the model is worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.calibration import Diagnosis
from keras_mvn.calibration._slices import Slice, quantile_bins
from keras_mvn.report._calibration import SIGNIFICANT, Calibration
from keras_mvn.report._comparison import LEVEL
from keras_mvn.report._data import Assessed
from keras_mvn.report._dependence import BINS, few_values

__all__ = ["FarRow", "Part", "WeakSpots", "weak_spots_of"]

PARTS = 6
ROWS = 5
FEWEST = 5
"""Minimum number of rows in a part that is listed."""


@final
@dataclass(frozen=True)
class Part:
    """A slice of the data, and the coverage of the 90 % region in it."""

    slice: Slice
    coverage: float
    """Coverage of the 90 % region in these rows."""
    coverage_p_value: float
    """p-value of its difference from the coverage in all rows; Bonferroni over all parts."""

    @property
    def beyond_chance(self) -> bool:
        """Whether it deviates beyond chance, corrected for the number of parts examined."""
        return self.slice.adjusted_p_value < SIGNIFICANT


@final
@dataclass(frozen=True)
class FarRow:
    """A row far from its prediction."""

    index: int
    label: str
    distance: float
    """Mahalanobis distance, in standard deviations."""
    probability: float
    """Probability of a row at least as far off, if the model is right."""
    target: str
    error: float
    """Error of the target that is furthest off, in its standard deviations."""


@final
@dataclass(frozen=True)
class WeakSpots:
    """Parts and rows where the model is worst, the worst first."""

    parts: tuple[Part, ...]
    rows: tuple[FarRow, ...]
    heavy_tails: bool
    overall: float
    """Coverage of the 90 % region in all rows."""

    @property
    def undercovered(self) -> Part | None:
        """The part whose region holds too few rows, beyond chance and regardless of the tails."""
        parts = [
            part
            for part in self.parts
            if part.coverage_p_value < SIGNIFICANT and part.coverage < LEVEL
        ]
        return min(parts, key=lambda part: part.coverage_p_value, default=None)

    @property
    def sentence(self) -> str:
        """A sentence on whether any part deviates beyond chance."""
        if not self.parts:
            return "There are too few rows, or no inputs, to examine parts of the data."
        beyond = sum(part.beyond_chance for part in self.parts)
        if not beyond:
            return (
                "No part deviates beyond chance "
                f"(p < {SIGNIFICANT}, corrected for the number of parts examined)."
            )
        which = "All parts" if beyond == len(self.parts) else f"{beyond} of the parts"
        caution = (
            " These p-values assume normal errors; with the heavy tails found here, they are too "
            "small and may depend on single rows: compare the share in the 90 % region."
        )
        return (
            f"{which} listed deviate{'s' if beyond == 1 else ''} beyond chance (p < {SIGNIFICANT}, "
            f"corrected for the number of parts examined).{caution if self.heavy_tails else ''}"
        )


def weak_spots_of(
    assessed: Assessed, found: Calibration, x: Mapping[str, np.ndarray], labels: np.ndarray
) -> WeakSpots:
    """Return the slices and the rows that deviate most."""
    columns = {name: column for name, column in x.items() if few_values(column)}
    return WeakSpots(
        _parts(found.after, columns),
        _far_rows(assessed, found.after, labels),
        found.heavy_tails is not None,
        float(found.after.joint.at(LEVEL).fraction[0]),
    )


def _parts(found: Diagnosis, columns: dict[str, np.ndarray]) -> tuple[Part, ...]:
    members = {
        label: member
        for name, column in columns.items()
        for label, member in quantile_bins(name, column, BINS)
    }
    pit = _pit_of_all(found)
    inside = np.where(np.isnan(pit), np.nan, pit <= LEVEL)
    slices = [one for one in found.worst_slices(columns, BINS, None) if one.rows >= FEWEST]
    parts = [_part(one, inside, members[one.name], len(slices)) for one in slices]
    # The ranking uses squared distances, in which one far row weighs a lot; parts whose coverage
    # is off are therefore added.
    return tuple(
        part
        for rank, part in enumerate(parts)
        if rank < PARTS or part.coverage_p_value < SIGNIFICANT
    )[: PARTS + 2]


def _part(one: Slice, inside: Array, member: np.ndarray, looked_at: int) -> Part:
    overall = float(np.nanmean(inside))
    k, n = int(np.nansum(inside[member])), one.rows
    binom = require("scipy.stats", "the report").binom
    tail = min(float(binom.cdf(k, n, overall)), float(binom.sf(k - 1, n, overall)))
    return Part(one, k / n, min(1.0, 2.0 * tail * looked_at))


def _pit_of_all(found: Diagnosis) -> Array:
    """PIT value of every row; NaN where nothing was observed."""
    pit = np.full(len(found.squared_distances), np.nan)
    pit[found.observed_counts > 0] = found.pit
    return pit


def _far_rows(assessed: Assessed, found: Diagnosis, labels: np.ndarray) -> tuple[FarRow, ...]:
    pit = np.nan_to_num(_pit_of_all(found), nan=-1.0)
    # PIT values of far rows round to 1; such rows are ordered by distance.
    order = np.lexsort((-found.squared_distances, -pit))[:ROWS]
    return tuple(_far_row(int(i), assessed, found, labels[i]) for i in order if pit[i] >= 0)


def _far_row(i: int, assessed: Assessed, found: Diagnosis, label: Any) -> FarRow:
    one = assessed.model[i]
    errors = (assessed.y[i] - one.mean) / one.stddev
    j = int(np.nanargmax(np.abs(errors)))
    far = require("scipy.special", "the report").chdtrc
    probability = float(far(found.observed_counts[i], found.squared_distances[i]))
    distance = float(np.sqrt(found.squared_distances[i]))
    name = found.target_names[j]
    return FarRow(i, str(label), distance, probability, name, float(errors[j]))
