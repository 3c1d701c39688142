"""Values of the estimator's `calibration` parameter and their meaning."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from keras_mvn._core.types import Array
from keras_mvn.calibration import (
    MatrixScaling,
    PerTarget,
    Recalibration,
    SplitConformal,
    Temperature,
)
from keras_mvn.calibration._conformal_levels import ConformalLevels
from keras_mvn.calibration._conformal_scores import ConformalScores
from keras_mvn.distributions import Distribution

__all__ = ["CalibrationKind", "calibration_kind"]


class CalibrationKind(NamedTuple):
    """How the estimator uses the calibration rows."""

    conformal: bool
    """Whether regions and intervals change instead of covariances."""
    takes_gaps: bool
    needs_every_target: bool
    takes_mixtures: bool
    fit: Callable[[Distribution, Array], Any]


def calibration_kind(calibration: Any) -> CalibrationKind | None:
    """Look up the kind of calibration by name or class; None stays None.

    Raises:
        ValueError: calibration is none of these.

    """
    if calibration is None:
        return None
    if calibration is SplitConformal or calibration == "conformal":
        return CalibrationKind(True, False, False, True, _conformal)
    if isinstance(calibration, str) and calibration in _NAMED:
        return _NAMED[calibration]
    if isinstance(calibration, type) and issubclass(calibration, Recalibration):
        return _recalibration(calibration)
    raise ValueError(
        f"calibration={calibration!r} is not known. Expected None, 'conformal', one of "
        f"{sorted(_NAMED)}, or a subclass of keras_mvn.calibration.Recalibration."
    )


def _recalibration(cls: type[Recalibration], **options: Any) -> CalibrationKind:
    missing = "marginalize" if cls.takes_gaps else "raise"
    fit = functools.partial(cls.fit, missing=missing, **options)
    return CalibrationKind(False, cls.takes_gaps, cls.needs_every_target, cls.takes_mixtures, fit)


def _conformal(answer: Distribution, y: Array) -> ConformalScores | ConformalLevels:
    """Keep the errors of elliptical distributions, and the levels of others."""
    several = len(answer.parts() or ()) > 1
    return ConformalLevels.fit(answer, y) if several else ConformalScores.fit(answer, y)


_NAMED = {
    "temperature": _recalibration(Temperature),
    "coverage": _recalibration(Temperature, objective="coverage"),
    "per_target": _recalibration(PerTarget),
    "matrix": _recalibration(MatrixScaling),
}
