"""What to do next, in plain words. Every sentence has the numbers it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from keras_mvn._optional import require
from keras_mvn.report._calibration import BEFORE, OUTER, SIGNIFICANT, Calibration
from keras_mvn.report._comparison import LEVEL, Comparison
from keras_mvn.report._format import estimate, joined, number, percent, plural, signed
from keras_mvn.report._learning import Learning
from keras_mvn.report._weak_spots import WeakSpots

__all__ = ["CONSTANT", "DIAGONAL", "Advice", "Evidence", "advise"]

CONSTANT, DIAGONAL = "constant Σ", "diagonal"
"""Names of predictions that the rules know."""

TINY = 1e-300
"""Instead of 0, where predictions hit exactly."""

STANDARD_ERRORS = 2.0
"""Beyond which a gain is called one."""

FEW_ROWS = 200
"""Test rows below which the report says how little they tell."""

MATERIAL = 0.1
"""Mean error, in predicted standard deviations, from which it asks for action."""

UNEXPLAINED = 0.95
"""RMSE of a target, in its standard deviations, above which the inputs are said to tell little."""

LISTED = 5
"""Targets named in one sentence."""


@final
@dataclass(frozen=True)
class Advice:
    """A finding and what follows from it."""

    kind: Literal["act", "note", "good"]
    finding: str
    """A sentence with its numbers."""
    action: str
    """What to do; may be empty."""


@final
@dataclass(frozen=True)
class Evidence:
    """What the other sections found."""

    comparison: Comparison
    calibration: Calibration
    learning: Learning
    weak_spots: WeakSpots
    calibration_rows: int | None
    """None: not known."""

    @property
    def recalibrated(self) -> bool:
        """Whether there is a prediction from before."""
        return self.calibration.before is not None


def advise(evidence: Evidence) -> tuple[Advice, ...]:
    """All rules, what asks for action first."""
    found = [advice for rule in _RULES for advice in rule(evidence)]
    if not any(advice.kind == "act" for advice in found):
        found.append(Advice("good", "Nothing in these numbers asks for a change.", ""))
    order = ("act", "note", "good")
    return tuple(sorted(found, key=lambda advice: order.index(advice.kind)))


# --- rules ---------------------------------------------------------------------------------------


def _not_finite(e: Evidence) -> Iterator[Advice]:
    if epochs := e.learning.not_finite:
        yield Advice(
            "act",
            f"The loss was not finite in {plural(len(epochs), 'epoch')}, the first being "
            f"epoch {epochs[0]}.",
            "Look at the inputs of that epoch for extreme values, and lower the learning rate; "
            "keras_mvn's guard callback names batch, rows and cause.",
        )


def _size(e: Evidence) -> Iterator[Advice]:
    found = e.calibration.after
    coverage = found.joint.at(LEVEL)
    low, high = (100.0 * float(end[0]) for end in coverage.band())
    held = (
        f"The 90 % region covers {percent(float(coverage.fraction[0]), 1)} of "
        f"{plural(found.rows, 'test row')} (95 % confidence: {low:.1f} to {high:.1f} %)"
    )
    if not found.p_values["size"] < SIGNIFICANT:
        yield Advice("good", f"{held}; nothing speaks against the size of the regions.", "")
        return
    t = found.temperature
    direction = "too small" if t > 1 else "too large"
    finding = (
        f"{held}; the regions are {direction} on average, by a factor of "
        f"{number(max(t, 1.0 / max(t, TINY)), 2)} on standard deviations."
    )
    if e.recalibrated:
        rows = "" if e.calibration_rows is None else f" on {plural(e.calibration_rows, 'row')}"
        action = (
            f"The model was recalibrated already{rows}: those are too few, or hold outliers, or "
            "the test rows differ from them. Take more calibration rows, look at those furthest "
            "off, and check how the rows were split."
        )
    else:
        action = f"Recalibrate on rows that were not trained on; here one temperature is {t:.2f}."
    yield Advice("act", finding, action)


def _recalibration(e: Evidence) -> Iterator[Advice]:
    before, after = e.calibration.before, e.calibration.after
    if before is None or BEFORE not in e.comparison.gains:
        return
    gain, error = e.comparison.gains[BEFORE]
    shares = [percent(float(one.joint.at(LEVEL).fraction[0]), 1) for one in (before, after)]
    text = (
        f"Recalibration changed the coverage of the 90 % region from {shares[0]} to {shares[1]}, "
        f"and the NLL per target by {estimate(-gain, error)} nats"
    )
    if gain < -STANDARD_ERRORS * error:
        yield Advice(
            "act",
            text + ": the likelihood got worse.",
            "Compare with less flexible recalibration, or none.",
        )
    else:
        yield Advice("note", text + ".", "")


def _intervals(e: Evidence) -> Iterator[Advice]:
    """Targets whose 90 % intervals hold too few or too many, at a level for all of them."""
    found, d = e.calibration.after, len(e.calibration.after.target_names)
    at = found.marginal.at(LEVEL)
    held, fraction = at.inside[0], at.fraction[0]
    binom = require("scipy.stats", "the report").binom
    tail = np.minimum(binom.cdf(held, at.rows, LEVEL), binom.sf(held - 1, at.rows, LEVEL))
    off = np.flatnonzero(2.0 * tail * d < SIGNIFICANT)
    if d == 1 or not len(off):
        return
    if found.p_values["size"] < SIGNIFICANT and len(off) == d:
        small = found.temperature > 1.0
        if (small == (fraction < LEVEL)).all():
            return  # said by the size of the regions
    worst = off[np.argsort(-np.abs(fraction[off] - LEVEL))][:LISTED]
    told = joined([f"{percent(fraction[j], 1)} of {found.target_names[j]}" for j in worst])
    more = f", and {len(off) - LISTED} more" if len(off) > LISTED else ""
    finding = (
        f"Taken alone, {len(off)} of {d} targets miss: their 90 % intervals hold {told}{more}."
    )
    if e.calibration.heavy_tails is not None:
        action = (
            "Mend the tails first: with heavy tails no factor on the standard deviations fits the "
            "intervals and the joint region at once."
        )
    else:
        action = (
            "Recalibrate target by target (PerTarget), or with a matrix (MatrixScaling) if there "
            "are enough calibration rows."
        )
    yield Advice("act", finding, action)


def _bias(e: Evidence) -> Iterator[Advice]:
    found = e.calibration.after
    if not found.p_values["bias"] < SIGNIFICANT:
        return
    order = np.argsort(-np.abs(found.bias))[:3]
    told = joined([f"{signed(found.bias[j])} ({found.target_names[j]})" for j in order])
    finding = (
        f"Errors are not zero on average (Hotelling's test, p = {found.p_values['bias']:.1g}); in "
        f"predicted standard deviations: {told}"
    )
    if np.abs(found.bias).max() < MATERIAL:
        yield Advice("note", f"{finding}. That is small.", "")
    else:
        yield Advice(
            "act",
            finding + ".",
            "Check whether test rows come from another time, place or population than training "
            "rows.",
        )


def _tails(e: Evidence) -> Iterator[Advice]:
    outside = e.calibration.heavy_tails
    if outside is None:
        return
    yield Advice(
        "act",
        f"Tails are heavier than a normal's: with the size of the regions put right, "
        f"{percent(outside, 1)} of the rows are outside the 99 % region "
        f"({percent(1 - OUTER, 1)} expected).",
        "Look at the rows that are furthest off, below; transform skewed targets (log, "
        "Yeo–Johnson); conformal regions keep their coverage whatever the tails.",
    )


def _unexplained(e: Evidence) -> Iterator[Advice]:
    rmse = e.comparison.model["rmse"]
    relative = {
        name: value / unit
        for (name, value), unit in zip(
            (rmse.per_target or {}).items(), e.comparison.units, strict=True
        )
    }
    poor = sorted((n for n, r in relative.items() if r > UNEXPLAINED), key=lambda n: -relative[n])
    if not poor:
        return
    told = joined([f"{name} (RMSE {relative[name]:.2f})" for name in poor[:LISTED]])
    more = f" and {len(poor) - LISTED} more" if len(poor) > LISTED else ""
    yield Advice(
        "note",
        f"The predicted means of {told}{more} are hardly better than one mean for all rows, or "
        "worse (RMSE in standard deviations of the target; 1 is that mean).",
        "Other inputs, or more rows, if these targets matter.",
    )


def _constant(e: Evidence) -> Iterator[Advice]:
    if CONSTANT not in e.comparison.gains:
        return
    gain, error = e.comparison.gains[CONSTANT]
    if gain > STANDARD_ERRORS * error:
        yield Advice(
            "good",
            f"The model beats one constant covariance by {estimate(gain, error)} nats per target: "
            "that the uncertainty changes with the inputs matters.",
            "",
        )
    else:
        better = gain < -STANDARD_ERRORS * error
        yield Advice(
            "act",
            f"A constant covariance does {'better' if better else 'as well'}: the model "
            f"{'loses' if better else 'gains'} {estimate(abs(gain) if better else gain, error)} "
            "nats per target against it.",
            "Use the constant covariance, which is simpler, or shrink towards it (a covariance "
            "penalty), or train on more rows.",
        )


def _diagonal(e: Evidence) -> Iterator[Advice]:
    if DIAGONAL not in e.comparison.gains or len(e.calibration.after.target_names) == 1:
        return
    gain, error = e.comparison.gains[DIAGONAL]
    if gain > STANDARD_ERRORS * error:
        yield Advice(
            "good",
            f"The model beats the diagonal one by {estimate(gain, error)} nats per target: "
            "correlations matter.",
            "",
        )
    else:
        better = gain < -STANDARD_ERRORS * error
        yield Advice(
            "act" if better else "note",
            f"The diagonal model does {'better' if better else 'as well'}: the difference is "
            f"{estimate(-gain, error)} nats per target.",
            "If the joint distribution is not needed, covariance='diagonal' is simpler.",
        )


def _overfitting(e: Evidence) -> Iterator[Advice]:
    curve = e.learning
    if curve.overfitted:
        best, end = curve.best, len(curve.loss)
        yield Advice(
            "note",
            f"From epoch {best + 1} to {end} the training loss fell from "
            f"{number(curve.loss[best])} to {number(curve.at_end(curve.loss))} while the "
            f"validation loss rose from {number(curve.val_loss[best])} to "
            f"{number(curve.at_end(curve.val_loss))} (ends: medians of the last 5 epochs): "
            "overfitting.",
            f"Keep the weights of epoch {best + 1} (early stopping with restored weights does); "
            "to go further: more rows, a smaller network, dropout or a covariance penalty.",
        )
    elif curve.cut_short:
        yield Advice(
            "act",
            f"The validation loss was at its best in epoch {curve.best + 1} of "
            f"{len(curve.loss)}: training may have been cut short.",
            "Train for more epochs.",
        )


def _slices(e: Evidence) -> Iterator[Advice]:
    worst = e.weak_spots.undercovered
    if worst is None:
        return
    yield Advice(
        "act",
        f"Where {worst.slice.name}, the 90 % region covers {percent(worst.coverage, 1)} of "
        f"{plural(worst.slice.rows, 'row')}, and errors are {number(worst.slice.temperature)} "
        "times as large as predicted.",
        "Recalibrate by groups (MondrianConformal) along that input, or add rows or inputs there.",
    )


def _few_rows(e: Evidence) -> Iterator[Advice]:
    n = e.calibration.after.rows
    if n < FEW_ROWS:
        error = np.sqrt(LEVEL * (1 - LEVEL) / n)
        yield Advice(
            "note",
            f"With {plural(n, 'test row')} the coverage of a 90 % region is only known to about "
            f"±{100 * STANDARD_ERRORS * error:.0f} points.",
            "Take more test rows, or repeat over several splits, before choosing between close "
            "models.",
        )


_RULES: tuple[Callable[[Evidence], Iterator[Advice]], ...] = (
    _not_finite,
    _size,
    _tails,
    _intervals,
    _bias,
    _slices,
    _constant,
    _diagonal,
    _recalibration,
    _overfitting,
    _unexplained,
    _few_rows,
)
