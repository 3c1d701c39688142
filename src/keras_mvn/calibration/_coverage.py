"""Coverage of regions at several levels, with binomial uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["CONFIDENCE", "CoverageCurve"]

CONFIDENCE = 0.95
"""Confidence level of the bands: of the coverage, and of what a calibrated model would show."""


@final
@dataclass(frozen=True, eq=False)
class CoverageCurve:
    """Numbers of rows inside their regions, at several levels.

    Args:
        levels: (m,), nominal coverage of the regions.
        inside: (m,) or (m, d), number of rows that were inside.
        rows: () or (d,), number of rows in total.

    """

    levels: Array
    inside: np.ndarray
    rows: np.ndarray

    @classmethod
    def of_pit(cls, pit: Array, levels: Array) -> CoverageCurve:
        """Count rows, given the level of the smallest region that contains each.

        Args:
            pit: (n,) or (n, d), these levels; NaN for missing values.
            levels: (m,), levels to count at.

        """
        inside = np.stack([np.sum(pit <= level, axis=0) for level in levels])
        return cls(levels, inside, np.sum(~np.isnan(pit), axis=0))

    @property
    def fraction(self) -> Array:
        """The fraction of rows inside, with the shape of `inside`."""
        return self.inside / self.rows

    def band(self) -> tuple[Array, Array]:
        """The 95 % Clopper–Pearson confidence interval of the coverage."""
        special = require("scipy.special", "CoverageCurve.band")
        tail, k, n = 0.5 * (1.0 - CONFIDENCE), self.inside, np.broadcast_to(self.rows, self._shape)
        lower = special.betaincinv(np.maximum(k, 1), n - k + 1, tail)
        upper = special.betaincinv(k + 1, np.maximum(n - k, 1), 1.0 - tail)
        return np.where(k == 0, 0.0, lower), np.where(k == n, 1.0, upper)

    def expected_band(self) -> tuple[Array, Array]:
        """The central 95 % range of the fraction for a calibrated model."""
        binom = require("scipy.stats", "CoverageCurve.expected_band").binom
        n = np.broadcast_to(self.rows, self._shape)
        level = self.levels.reshape(-1, *(1,) * (n.ndim - 1))
        tail = 0.5 * (1.0 - CONFIDENCE)
        return binom.ppf(tail, n, level) / n, binom.ppf(1.0 - tail, n, level) / n

    def at(self, level: float) -> CoverageCurve:
        """Return the curve at one of its levels.

        Raises:
            ValueError: `level` is not one of the levels.

        """
        index = np.flatnonzero(np.isclose(self.levels, level))
        if not len(index):
            raise ValueError(f"level={level!r} must be one of {self.levels.tolist()}.")
        return CoverageCurve(self.levels[index], self.inside[index], self.rows)

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.inside.shape

    def to_dict(self) -> dict[str, Any]:
        """Return levels, coverage and bands as lists."""
        (lower, upper), (low, high) = self.band(), self.expected_band()
        columns = {
            "level": self.levels,
            "coverage": self.fraction,
            "lower": lower,
            "upper": upper,
            "expected_lower": low,
            "expected_upper": high,
        }
        return {name: np.asarray(column).tolist() for name, column in columns.items()}
