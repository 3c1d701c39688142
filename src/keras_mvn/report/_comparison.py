"""Comparison of the model with its alternatives, score by score, on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from keras_mvn import scores
from keras_mvn._core.types import Array
from keras_mvn.report._data import CONSTANT, MODEL, Assessed
from keras_mvn.report._format import estimate

__all__ = ["LEVEL", "Comparison", "ScoreRow", "compare"]

LEVEL = 0.9
"""Level of the regions and intervals in the report."""

MANY_TARGETS = 200
"""Targets beyond which the variogram score, with its d(d − 1)/2 pairs, is left out."""

CELLS = "cell_nll_per_target"
"""The score that decides where values repeat."""

OTHER_SCORES = ["crps", "energy_score"]
"""Other proper scores; if they contradict the likelihood, it must not decide alone."""

_LABELS = {
    "nll": ("NLL", "nats per row"),
    "nll_per_target": ("NLL per target", "nats"),
    CELLS: ("NLL of cells per target", "nats; some values repeat, their density says little"),
    "rmse": ("RMSE", "sd of y"),
    "crps": ("CRPS", "each target alone; sd of y"),
    "energy_score": ("Energy score", "all targets; sd of y"),
    "variogram_score": ("Variogram score", "pairs of targets"),
    "coverage_90": ("Coverage of the 90 % region", "all targets together; %"),
    "marginal_coverage_90": ("Coverage of 90 % intervals", "each target alone; %"),
}


@final
@dataclass(frozen=True)
class ScoreRow:
    """One score of every prediction, as text with standard errors."""

    name: str
    note: str
    cells: tuple[str, ...]


@final
@dataclass(frozen=True)
class Comparison:
    """The table of scores, and the numbers behind it."""

    names: tuple[str, ...]
    """Names of the predictions, the model first."""
    table: tuple[ScoreRow, ...]
    model: scores.Evaluation
    gains: dict[str, tuple[float, float]]
    """Alternative → the gain in NLL per target (of cells, if any), and its standard error."""
    units: Array
    """(d,), units in which targets are compared."""
    other_gains: dict[str, dict[str, tuple[float, float]]]
    """Alternative → CRPS and energy score → the model's gain, and its standard error."""


def compare(assessed: Assessed) -> Comparison:
    """Compute the scores of all predictions, and the model's gains."""
    y, model = assessed.y, assessed.model
    units = _units(assessed)
    widths = assessed.resolution
    likelihood = CELLS if widths.any() else "nll_per_target"
    possible = {"variogram_score": 1 < y.shape[1] <= MANY_TARGETS, CELLS: bool(widths.any())}
    wanted = [name for name in _LABELS if possible.get(name, True)]
    found = {
        name: scores.evaluate(normal, y, "marginalize", LEVEL, None, units, wanted, widths)
        for name, normal in assessed.predictions.items()
    }
    gains, other_gains = {}, {}
    for name, normal in assessed.predictions.items():
        if name == MODEL:
            continue
        # The energy score is slow; it is only computed where it may contradict.
        others = OTHER_SCORES if name == CONSTANT else []
        paired = scores.evaluate(
            model, y, "marginalize", LEVEL, normal, units, [likelihood, *others], widths
        )
        gains[name] = _gain(paired[likelihood])
        other_gains[name] = {score: _gain(paired[score]) for score in others}
    table = [_row(name, found) for name in wanted]
    if gains:
        cells = ("–", *(estimate(*gain) for gain in gains.values()))
        note = "nats per target, row by row"
        table.insert(1 + wanted.index(likelihood), ScoreRow("The model gains", note, cells))
    return Comparison(tuple(found), tuple(table), found[MODEL], gains, units, other_gains)


def _gain(paired: scores.Score) -> tuple[float, float]:
    """Return the model's gain, and its standard error."""
    return -float(paired.difference or 0.0), float(paired.difference_standard_error or 0.0)


def _row(name: str, found: dict[str, scores.Evaluation]) -> ScoreRow:
    factor = 100.0 if "coverage" in name else 1.0
    cells = tuple(
        estimate(one[name].mean, one[name].standard_error, factor) for one in found.values()
    )
    return ScoreRow(*_LABELS[name], cells)


def _units(assessed: Assessed) -> Array:
    """Standard deviations of y in the test rows; predicted ones for targets constant there."""
    spread = np.nanstd(assessed.y, axis=0)
    predicted = assessed.model.stddev.mean(axis=0)
    return np.asarray(np.where(spread > 1e-9 * predicted, spread, predicted))
