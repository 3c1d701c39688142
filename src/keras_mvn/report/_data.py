"""The data from which a report is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.targets import names_of_targets
from keras_mvn._core.types import Array
from keras_mvn.distributions import Distribution
from keras_mvn.report._drivers import Driver

__all__ = ["CONSTANT", "DIAGONAL", "MODEL", "Assessed", "ReportData"]

MODEL = "model"
"""Name of the predictions that the report is about; they are compared with all others."""

CONSTANT, DIAGONAL = "constant Σ", "diagonal"
"""Names of predictions known to the report; the second is also the name of a structure."""

CONSTANT_STRUCTURE = "the same for all rows"
"""Suffix of the name of a structure whose covariance does not depend on the inputs."""


@final
@dataclass(frozen=True, eq=False)
class Assessed:
    """Predictions and observations of the targets that are observed in at least one test row."""

    predictions: dict[str, Distribution]
    y: Array
    never_observed: tuple[str, ...]
    resolution: Array
    """Widths of the cells of targets whose values repeat, 0 for others: (d,)."""
    itself: frozenset[str] = frozenset()
    """Names of the predictions left out because the model is of the same kind."""

    @property
    def model(self) -> Distribution:
        """The model's predictions."""
        return self.predictions[MODEL]


@final
@dataclass(frozen=True, eq=False)
class ReportData:
    """One fit and its predictions for the test rows.

    Args:
        title: title of the report.
        source: name of the file that the table came from.
        rows: number of rows used for "train", "validation", "calibration" and "test".
        inputs: names of the input columns.
        targets: names of the d targets.
        covariance: name of the covariance structure.
        command: the command that made the fit.
        versions: package → version.
        created: ISO date.
        predictions: name → distributions for the n test rows; "model" (final, calibrated) first,
            then the alternatives, such as "uncalibrated", "diagonal", "constant Σ".
        y: (n, d), observed values, in the units of y; NaN: not observed.
        x: name → raw input column (n,) of the test rows, numbers or strings.
        row_labels: (n,), labels by which a reader finds a row.
        history: "loss" and "val_loss" of each epoch; empty if unknown.
        calibration: description of the recalibration; "" for none.
        decisions: descriptions of what was decided about the table.
        seconds: duration of the fit, in seconds.
        calibrated_for_coverage: whether regions of one level were calibrated to their coverage.
        chosen_from: structures that were compared on held-out rows; empty for none.
        resolution: (d,), widths of the cells of targets whose values repeat (counts, rounded
            values), 0 for others; () for none.
        outside: descriptions of inputs of which many test rows are beyond the training rows.
        tails: description of the tails and of how they were chosen; "" for nothing to say.
        drivers: what moves spreads and correlations; () for nothing to say.

    Raises:
        ValueError: "model" is not the first prediction, shapes do not match, or y holds infinite
            values or no observed value.

    """

    title: str
    source: str
    rows: Mapping[str, int]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    covariance: str
    command: str
    versions: Mapping[str, str]
    created: str
    predictions: Mapping[str, Distribution]
    y: Array
    x: Mapping[str, np.ndarray]
    row_labels: np.ndarray
    history: Mapping[str, list[float]]
    calibration: str
    decisions: tuple[str, ...]
    seconds: float
    calibrated_for_coverage: bool = False
    chosen_from: tuple[str, ...] = ()
    tails: str = ""
    outside: tuple[str, ...] = ()
    resolution: Sequence[float] = ()
    drivers: tuple[Driver, ...] = ()

    def __post_init__(self) -> None:
        d = len(self.targets)
        names = names_of_targets(self.targets, d)
        _set(self, "y", np.array(self.y, dtype=np.float64))
        _set(self, "row_labels", np.asarray(self.row_labels))
        _set(self, "x", {str(name): np.asarray(column) for name, column in self.x.items()})
        _check(self, (len(self.row_labels), d))
        _set(
            self,
            "predictions",
            {name: normal.with_names(names) for name, normal in self.predictions.items()},
        )

    @property
    def model(self) -> Distribution:
        """The final predictions."""
        return self.predictions[MODEL]

    def assessed(self) -> Assessed:
        """Leave out the targets that no test row observes, since they cannot be evaluated."""
        seen = (~np.isnan(self.y)).any(axis=0)
        unseen = tuple(self.targets[j] for j in np.flatnonzero(~seen))
        itself = frozenset(name for name in (DIAGONAL, CONSTANT) if self._is(name))
        compared = {name: p for name, p in self.predictions.items() if name not in itself}
        widths = np.asarray(self.resolution or np.zeros(len(self.targets)))
        if not unseen:
            return Assessed(compared, self.y, (), widths, itself)
        index = np.flatnonzero(seen)
        margins = {name: normal.marginal(index) for name, normal in compared.items()}
        return Assessed(margins, self.y[:, index], unseen, widths[index], itself)

    def _is(self, name: str) -> bool:
        """Whether the model is of the same kind as the alternative with this name."""
        other = self.predictions.get(name)
        if other is None:
            return False
        structure, _, constant = self.covariance.partition(", ")
        diagonal = structure == DIAGONAL
        constant_too = constant == CONSTANT_STRUCTURE and (not diagonal or len(self.targets) == 1)
        kind = diagonal if name == DIAGONAL else constant_too
        return kind or _same(self.model, other, self.y)


def _same(a: Distribution, b: Distribution, y: Array) -> bool:
    """Whether two predictions have equal variances and likelihoods, up to rounding."""
    if not np.allclose(a.variance, b.variance, rtol=1e-6, atol=0.0):
        return False
    density, other = (one.log_prob(y, missing="marginalize") for one in (a, b))
    return np.allclose(density, other, rtol=1e-6, atol=1e-6)


def _set(data: ReportData, name: str, value: Any) -> None:
    object.__setattr__(data, name, value)  # frozen for everyone else


def _check(data: ReportData, shape: tuple[int, int]) -> None:
    if next(iter(data.predictions), None) != MODEL:
        raise ValueError(
            f"predictions={list(data.predictions)!r} must have {MODEL!r} first; the report is "
            "about it."
        )
    for name, normal in data.predictions.items():
        if (*normal.batch_shape, normal.event_size) != shape:
            raise ValueError(
                f"predictions[{name!r}] has batch shape {normal.batch_shape} and "
                f"{normal.event_size} targets, but there are {shape[0]} row_labels and {shape[1]} "
                "targets."
            )
    if data.y.shape != shape:
        raise ValueError(f"y has shape {data.y.shape}; expected {shape} (rows, targets).")
    if np.isinf(data.y).any():
        raise ValueError("y holds infinite values; use NaN for values that were not observed.")
    if np.isnan(data.y).all():
        raise ValueError("y holds no observed value: there is nothing to report.")
    for name, column in data.x.items():
        if column.shape != shape[:1]:
            raise ValueError(
                f"x[{name!r}] has shape {column.shape}; expected {shape[:1]}, one per test row."
            )
