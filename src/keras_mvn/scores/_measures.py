"""The rows of the table of `evaluate`: statistics of predictions and observed values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.scores._cells import cell_log_score_of
from keras_mvn.scores._conditional_error import conditional_error_of
from keras_mvn.scores._energy_score import energy_of
from keras_mvn.scores._estimates import Estimate, mean_of, root_of, uniformity
from keras_mvn.scores._likelihood import dawid_sebastiani_of
from keras_mvn.scores._margins import crps_of, interval_of
from keras_mvn.scores._observations import Observations
from keras_mvn.scores._variogram_score import variogram_of

__all__ = ["Evidence", "Found", "Measure", "measures"]

SCALED = "scaled"
"""Unit of values divided by `target_scale`; the table replaces it with the name of the scale."""


@final
@dataclass(frozen=True)
class Evidence:
    """The n rows with observed values, and the quantities that several measures share."""

    rows: Observations
    """Predictions and observed values, with batch shape (n,)."""
    units: Array
    """`target_scale`, (d,)."""
    widths: Array | None = None
    """Resolution of the targets, (d,); None if it was not given."""

    @functools.cached_property
    def nll(self) -> Array:
        """The negative log-likelihood −log p of each row: (n,)."""
        return -self.rows.answer.log_prob(self.rows.with_gaps, self.rows.missing)

    @functools.cached_property
    def cell_nll(self) -> Array:
        """The log score −log P of the cell around each row: (n,)."""
        assert self.widths is not None
        return cell_log_score_of(self.rows, self.widths)

    @functools.cached_property
    def pit(self) -> Array:
        """The level of the smallest region around each row, uniform if the model is right: (n,)."""
        return self.rows.answer.region_level(self.rows.with_gaps, self.rows.missing)

    @functools.cached_property
    def scaled(self) -> Observations:
        """The rows in units of `target_scale`."""
        return self.rows.in_units(self.units)


class Found(NamedTuple):
    """A measure of all targets together, and of each target where that makes sense."""

    overall: Estimate
    """Value (), influence (n,)."""
    targets: Estimate | None = None
    """Values (d,), influences (n, d)."""


@final
@dataclass(frozen=True)
class Measure:
    """A row of the table of `evaluate`."""

    of: Callable[[Evidence], Found]
    unit: str
    target_unit: str | None = None
    """Unit of the columns of single targets; None if there are no such columns."""
    zero: bool = False
    """Whether 0 is the best value and far from usual ones, so a ratio to a reference is useful."""


def measures(levels: Sequence[float], cells: bool = False) -> dict[str, Measure]:
    """Return the rows of the table by name, in order; with `cells`, those of rounded values."""
    margin = functools.partial(Measure, unit=SCALED, target_unit="unit of y", zero=True)
    found = {
        "nll": Measure(lambda e: _per_row(e.nll), "nats"),
        "nll_per_target": Measure(lambda e: Found(mean_of(e.nll, e.rows.count)), "nats"),
    }
    if cells:
        found["cell_nll"] = Measure(lambda e: _per_row(e.cell_nll), "nats")
        found["cell_nll_per_target"] = Measure(
            lambda e: Found(mean_of(e.cell_nll, e.rows.count)), "nats"
        )
    found |= {
        "marginal_nll": Measure(_marginal_nll, "nats", "nats"),
        "dss": Measure(lambda e: _per_row(dawid_sebastiani_of(e.rows)), "2 nats"),
        "energy_score": Measure(lambda e: _per_row(energy_of(e.scaled)), SCALED, zero=True),
        "variogram_score": Measure(lambda e: _per_row(variogram_of(e.scaled)), SCALED, zero=True),
        "crps": margin(lambda e: _per_target(e, crps_of(e.rows))),
    }
    for p in levels:
        found[f"interval_score_{100 * p:g}"] = margin(functools.partial(_interval, level=p))
    found["rmse"] = margin(_rmse)
    found["conditional_error"] = margin(lambda e: _per_target(e, conditional_error_of(e.rows)))
    for p in levels:
        found[f"coverage_{100 * p:g}"] = Measure(functools.partial(_coverage, level=p), "share")
    for p in levels:
        found[f"marginal_coverage_{100 * p:g}"] = Measure(
            functools.partial(_marginal_coverage, level=p), "share", "share"
        )
    found["calibration_error"] = Measure(lambda e: Found(uniformity(e.pit)), "probability")
    for p in levels:
        found[f"log_volume_{100 * p:g}"] = Measure(
            functools.partial(_log_volume, level=p), "log unit of y"
        )
    return found


def _per_row(values: Array) -> Found:
    return Found(mean_of(values, np.ones(len(values))))


def _per_target(e: Evidence, values: Array, units: Array | float | None = None) -> Found:
    """Average (n, d) values: each column as it is, and all of them together in these units."""
    values = e.rows.of_observed(values)
    seen = np.ones(values.shape) if e.rows.observed is None else e.rows.observed
    scaled = values / (e.units if units is None else units)
    return Found(mean_of(scaled.sum(axis=-1), e.rows.count), mean_of(values, seen))


def _marginal_nll(e: Evidence) -> Found:
    nll = -e.rows.answer.marginal_log_prob(e.rows.y)
    return _per_target(e, nll, 1.0)


def _interval(e: Evidence, level: float) -> Found:
    return _per_target(e, interval_of(e.rows, level))


def _rmse(e: Evidence) -> Found:
    overall, targets = _per_target(e, e.rows.residual**2, e.units**2)
    return Found(root_of(overall), None if targets is None else root_of(targets))


def _coverage(e: Evidence, level: float) -> Found:
    return _per_row((e.pit <= level).astype(np.float64))


def _marginal_coverage(e: Evidence, level: float) -> Found:
    lower, upper = e.rows.answer.interval(level)
    inside = (lower <= e.rows.y) & (e.rows.y <= upper)
    return _per_target(e, inside.astype(np.float64), 1.0)


def _log_volume(e: Evidence, level: float) -> Found:
    return _per_row(e.rows.answer.region(level).log_volume)
