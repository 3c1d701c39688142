"""Calibration, jointly and target by target, before and after recalibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn.calibration import CoverageCurve, Diagnosis, diagnose
from keras_mvn.report._comparison import LEVEL, Comparison
from keras_mvn.report._data import Assessed
from keras_mvn.report._format import number, percent, signed

__all__ = [
    "BEFORE",
    "OUTER",
    "SIGNIFICANT",
    "Calibration",
    "TargetRow",
    "calibration_of",
    "furthest_first",
    "target_rows",
]

BEFORE = "uncalibrated"
"""Name of the predictions shown as those before recalibration."""

SIGNIFICANT = 0.01
"""p-value below which a deviation is reported."""

OUTER = 0.99
"""Level of the region outside of which rows are counted as tails."""

LISTED = 40
"""Maximum number of targets in the table; of more, those with the worst interval coverage."""


@final
@dataclass(frozen=True, eq=False)
class Calibration:
    """Diagnoses of the model, and, if known, of the model before recalibration."""

    after: Diagnosis
    before: Diagnosis | None

    @property
    def sentences(self) -> tuple[str, ...]:
        """Sentences of the diagnosis of the final model."""
        return tuple(str(self.after).split("\n"))

    @property
    def before_sentence(self) -> str:
        """The first sentence on the model before recalibration, and which tests deviate."""
        if self.before is None:
            return ""
        first, *others = str(self.before).split("\n")
        return f"{first} {others[-1]}" if self.before.deviations else first

    @property
    def heavy_tails(self) -> float | None:
        """The share of rows outside the 99 % region, if it exceeds chance; otherwise None.

        Standard deviations are first corrected on average, so that only the shape matters.
        """
        found = self.after
        if "tails" not in found.deviations:
            return None
        seen = found.observed_counts > 0
        squared = found.squared_distances[seen] / found.temperature**2
        chdtr = require("scipy.special", "the report").chdtr
        outer = CoverageCurve.of_pit(chdtr(found.observed_counts[seen], squared), np.array([OUTER]))
        lowest = float(outer.expected_band()[0][0])
        return float(1.0 - outer.fraction[0]) if outer.fraction[0] < lowest else None


@final
@dataclass(frozen=True)
class TargetRow:
    """One row of the table of targets, as text."""

    name: str
    rmse: str
    crps: str
    coverage_before: str
    coverage: str
    bias: str
    scatter: str


def calibration_of(assessed: Assessed) -> Calibration:
    """Diagnose the model and, if given, the uncalibrated one."""
    before = assessed.predictions.get(BEFORE)
    return Calibration(
        diagnose(assessed.model, assessed.y, missing="marginalize"),
        None if before is None else diagnose(before, assessed.y, missing="marginalize"),
    )


def furthest_first(found: Diagnosis) -> np.ndarray:
    """Return the positions of targets, those whose 90 % intervals are furthest from 90 % first."""
    return np.argsort(-np.abs(found.marginal.at(LEVEL).fraction[0] - LEVEL), kind="stable")


def target_rows(found: Calibration, compared: Comparison) -> tuple[TargetRow, ...]:
    """Return the rows of the table of targets, in their order."""
    d = len(found.after.target_names)
    shown = np.sort(furthest_first(found.after)[:LISTED])
    after = found.after.marginal.at(LEVEL).fraction[0]
    before = None if found.before is None else found.before.marginal.at(LEVEL).fraction[0]
    rmse, crps = (compared.model[name].per_target or {} for name in ("rmse", "crps"))
    rows = []
    for j in shown if d > LISTED else range(d):
        name = found.after.target_names[j]
        rows.append(
            TargetRow(
                name,
                number(rmse[name]),
                number(crps[name]),
                "" if before is None else percent(before[j], 1),
                percent(after[j], 1),
                signed(found.after.bias[j]),
                number(np.sqrt(found.after.dispersion[j])),
            )
        )
    return tuple(rows)
