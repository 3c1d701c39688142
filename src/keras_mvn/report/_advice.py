"""Advice on what to do next, in plain words; every sentence gives the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn.report._calibration import BEFORE, OUTER, SIGNIFICANT, Calibration
from keras_mvn.report._comparison import LEVEL, Comparison
from keras_mvn.report._data import CONSTANT, DIAGONAL
from keras_mvn.report._format import estimate, joined, number, percent, plural, signed
from keras_mvn.report._learning import Learning
from keras_mvn.report._weak_spots import WeakSpots

__all__ = ["Advice", "Evidence", "advise"]

PYTHON = "in Python: MultivariateNormalRegressor"
"""Prefix of Python code; every action says what to do on the command line and in Python."""

TINY = 1e-300
"""Lower bound that replaces a temperature of 0, when predictions are exact."""

STANDARD_ERRORS = 2.0
"""Number of standard errors beyond which a gain counts as real."""

FEW_ROWS = 200
"""Number of test rows below which the report states how imprecise they are."""

TOO_FEW = 50
"""Number of test rows below which they are not used to choose a model."""

SINGULAR = 1e-3
"""Smallest eigenvalue of a correlation matrix below which it is called nearly singular."""

MATERIAL = 0.1
"""Mean error, in predicted standard deviations, from which it calls for action."""

UNEXPLAINED = 0.95
"""RMSE of a target, in its standard deviations, above which the inputs explain little."""

LISTED = 5
"""Maximum number of targets named in one sentence."""


@final
@dataclass(frozen=True)
class Advice:
    """A finding and the action it suggests."""

    kind: Literal["act", "note", "good"]
    finding: str
    """The finding as a sentence, with its numbers."""
    action: str
    """The suggested action; may be empty."""
    first: bool = False
    """Whether it comes before all others, regardless of its kind."""


@final
@dataclass(frozen=True)
class Evidence:
    """Findings of the other sections."""

    comparison: Comparison
    calibration: Calibration
    learning: Learning
    weak_spots: WeakSpots
    calibration_rows: int | None
    """Number of calibration rows; None: unknown."""
    calibrated_for_coverage: bool
    chosen_from: tuple[str, ...]
    """Structures that were compared on held-out rows."""
    itself: frozenset[str]
    """Alternatives that the model is not compared with, because it is one of them."""
    copies: tuple[int, int] | None
    """Positions of two targets, one a linear function of the other; None if there are none."""
    smallest_eigenvalue: float
    """Smallest eigenvalue of the correlation matrix of the constant covariance."""
    has_tails: bool = False
    """Whether the model predicts a Student's t."""
    outside: tuple[str, ...] = ()
    """Inputs of which many test rows are beyond the training rows."""

    @property
    def too_few(self) -> bool:
        """Whether there are too few test rows to choose a model by."""
        return self.calibration.after.rows < TOO_FEW

    @property
    def recalibrated(self) -> bool:
        """Whether there are predictions from before recalibration."""
        return self.calibration.before is not None


def advise(evidence: Evidence) -> tuple[Advice, ...]:
    """Apply all rules; return the advice that calls for action first."""
    found = [advice for rule in _RULES for advice in rule(evidence)]
    if not evidence.too_few and not any(advice.kind == "act" for advice in found):
        found.append(Advice("good", "Nothing in these numbers calls for a change.", ""))
    order = ("act", "note", "good")
    return tuple(sorted(found, key=lambda one: (not one.first, order.index(one.kind))))


def _of_models(e: Evidence, kind: Literal["act", "note"], finding: str, action: str = "") -> Advice:
    """Return advice to change the model; with too few test rows, it is only a note."""
    if not e.too_few:
        return Advice(kind, finding, action)
    rows = plural(e.calibration.after.rows, "test row")
    return Advice("note", finding, f"But do not choose a model based on only {rows}.")


# --- rules ---------------------------------------------------------------------------------------


def _not_finite(e: Evidence) -> Iterator[Advice]:
    if epochs := e.learning.not_finite:
        yield Advice(
            "act",
            f"The loss was not finite in {plural(len(epochs), 'epoch')}, the first being "
            f"epoch {epochs[0]}.",
            "Check the inputs of that epoch for extreme values, and lower the learning rate "
            f"(--learning-rate 0.001; {PYTHON}(learning_rate=0.001)).",
        )


def _outside(e: Evidence) -> Iterator[Advice]:
    if e.outside:
        rest = f" (and {len(e.outside) - MOST_INPUTS} more inputs)" * (len(e.outside) > MOST_INPUTS)
        yield Advice(
            "act",
            f"Test rows are outside what was seen in training. {'; '.join(e.outside[:MOST_INPUTS])}"
            f"{rest}.",
            "There the model extrapolates: its regions are often too small, and recalibration on "
            "rows within the range cannot know. Train on rows that reach as far, or leave out "
            "inputs that only grow, such as a year (--drop), if what they say is not needed.",
        )


MOST_INPUTS = 3
"""Maximum number of inputs beyond the training rows that are described."""


def _size(e: Evidence) -> Iterator[Advice]:
    found = e.calibration.after
    coverage = found.joint.at(LEVEL)
    low, high = (100.0 * float(end[0]) for end in coverage.band())
    held = (
        f"The 90 % region covers {percent(float(coverage.fraction[0]), 1)} of "
        f"{plural(found.rows, 'test row')} (95 % confidence: {low:.1f} to {high:.1f} %)"
    )
    if "size" not in found.deviations:
        if e.too_few:
            yield Advice("note", f"{held}: too few rows to judge the size of the regions.", "")
        elif found.deviations:
            told = joined(found.deviations)
            finding = f"{held}: the right size on average, but not calibrated ({told})."
            yield Advice("note", finding, "")
        else:
            yield Advice("good", f"{held}; there is no evidence that its size is wrong.", "")
        return
    t = found.temperature
    direction = "too small" if t > 1 else "too large"
    finding = (
        f"{held}; the regions are {direction} on average, by a factor of "
        f"{number(max(t, 1.0 / max(t, TINY)), 2)} in standard deviations."
    )
    if e.recalibrated:
        rows = "" if e.calibration_rows is None else f" on {plural(e.calibration_rows, 'row')}"
        action = (
            f"The model was already recalibrated{rows}: the calibration rows are too few, contain "
            "outliers, or differ from the test rows. Check the rows furthest off, below; if rows "
            f"depend on each other, split by --group or --time ({PYTHON}().fit(…, groups=…)); or "
            "use a larger table, of which keras-mvn fit keeps one row in ten for calibration "
            f"({PYTHON}(calibration_fraction=0.25))."
        )
    else:
        action = (
            "Recalibrate on rows that were not used for training (--calibration coverage; "
            f'{PYTHON}(calibration="coverage")); here, a single temperature would be {t:.2f}.'
        )
    yield Advice("act", finding, action)


def _recalibration(e: Evidence) -> Iterator[Advice]:
    before, after = e.calibration.before, e.calibration.after
    if before is None or BEFORE not in e.comparison.gains:
        return
    gain, error = e.comparison.gains[BEFORE]
    shares = [percent(float(one.joint.at(LEVEL).fraction[0]), 1) for one in (before, after)]
    what = "the coverage of the 90 % region"
    if shares[0] == shares[1]:
        text = f"Recalibration left {what} at {shares[0]}, and changed"
    else:
        text = f"Recalibration changed {what} from {shares[0]} to {shares[1]}, and"
    text += f" the NLL per target by {estimate(-gain, error)} nats"
    if gain < -STANDARD_ERRORS * error:
        yield _of_models(
            e,
            "act",
            text + ": the likelihood got worse.",
            "Compare with the maximum-likelihood factor, or with no recalibration "
            f'(--calibration temperature or none; {PYTHON}(calibration="temperature") or None).',
        )
    else:
        yield Advice("note", text + ".", "")


def _intervals(e: Evidence) -> Iterator[Advice]:
    """Targets whose 90 % intervals hold too few or too many values, corrected for multiplicity."""
    found, d = e.calibration.after, len(e.calibration.after.target_names)
    at = found.marginal.at(LEVEL)
    held, fraction = at.inside[0], at.fraction[0]
    binom = require("scipy.stats", "the report").binom
    tail = np.minimum(binom.cdf(held, at.rows, LEVEL), binom.sf(held - 1, at.rows, LEVEL))
    off = np.flatnonzero(2.0 * tail * d < SIGNIFICANT)
    if d == 1 or not len(off):
        return
    if "size" in found.deviations and len(off) == d:
        small = found.temperature > 1.0
        if (small == (fraction < LEVEL)).all():
            return  # already reported with the size of the regions
    worst = off[np.argsort(-np.abs(fraction[off] - LEVEL))][:LISTED]
    told = joined([f"{percent(fraction[j], 1)} of {found.target_names[j]}" for j in worst])
    more = f", and {len(off) - LISTED} more" if len(off) > LISTED else ""
    finding = f"The 90 % intervals of {len(off)} of {d} targets are off: they hold {told}{more}."
    if e.calibration.heavy_tails is not None:
        action = (
            "Address the tails first: with heavy tails, no factor on the standard deviations fits "
            "both the intervals and the joint region."
        )
    else:
        action = (
            "Recalibrate target by target (--calibration per_target; "
            f'{PYTHON}(calibration="per_target")), or, with hundreds of calibration rows, with a '
            "matrix (matrix instead of per_target)."
        )
    yield Advice("act", finding, action)


def _bias(e: Evidence) -> Iterator[Advice]:
    found = e.calibration.after
    if "bias" not in found.deviations:
        return
    order = np.argsort(-np.abs(found.bias))[:3]
    told = joined([f"{signed(found.bias[j])} ({found.target_names[j]})" for j in order])
    finding = (
        f"Errors are not zero on average (Hotelling's test, "
        f"p = {found.adjusted_p_values['bias']:.1g}, corrected for the number of tests); in "
        f"predicted standard deviations: {told}"
    )
    if np.abs(found.bias).max() < MATERIAL:
        yield Advice("note", f"{finding}. That is small.", "")
    else:
        yield Advice(
            "act",
            finding + ".",
            "Check whether the test rows come from a different time, place or population than the "
            "training rows; an input that distinguishes them may help.",
        )


def _tails(e: Evidence) -> Iterator[Advice]:
    outside = e.calibration.heavy_tails
    if outside is None:
        return
    yield Advice(
        "act",
        "Tails are heavier than predicted: with the size of the regions "
        f"corrected, {percent(outside, 1)} of the rows are outside the 99 % region "
        f"({percent(1 - OUTER, 1)} expected).",
        f"Check the rows that are furthest off, below. {_other_tails(e)}{_regions_all_the_same(e)} "
        "If targets are skewed, take the logarithm of their columns, or transform them "
        f'({PYTHON}(target_transform="yeo-johnson")).',
    )


def _other_tails(e: Evidence) -> str:
    """Return advice on tails, unless the model has them."""
    return "" if e.has_tails else f'Predict a Student\'s t: --tails t ({PYTHON}(tails="t")). '


def _regions_all_the_same(e: Evidence) -> str:
    """Return advice on regions with the right coverage even though the tails do not fit."""
    every = f'regions of every level, use conformal prediction ({PYTHON}(calibration="conformal"))'
    if e.calibrated_for_coverage:
        return f"The 90 % regions were calibrated to hold 90 %; for {every}."
    return (
        "For 90 % regions that hold 90 % nevertheless, use --calibration coverage "
        f'({PYTHON}(calibration="coverage")); for {every}.'
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
        f"The predicted means of {told}{more} are hardly better than a single mean for all "
        "rows, or worse (RMSE in standard deviations of the target; 1 for the single mean).",
        "If these targets matter, add inputs or rows to the table.",
    )


def _copies(e: Evidence) -> Iterator[Advice]:
    if e.copies is None:
        return
    names = e.calibration.after.target_names
    kept, copy = (names[j] for j in e.copies)
    yield Advice(
        "act",
        f"{copy} is (nearly) a copy of {kept}: in the test rows, one is a linear function of the "
        "other. Their covariance is singular except for noise, on which likelihoods depend.",
        f"Leave one of them out of the targets, and compute {copy} from the predicted {kept}.",
    )


def _constant(e: Evidence) -> Iterator[Advice]:
    if CONSTANT in e.itself:
        yield Advice(
            "note",
            "The chosen covariance is the same for all rows, so there is no constant alternative "
            "to compare it with. --covariance auto, the default, chooses it when a covariance that "
            "varies with the inputs does not help on held-out rows.",
            "",
        )
    if CONSTANT not in e.comparison.gains:
        return
    gain, error = e.comparison.gains[CONSTANT]
    if gain > STANDARD_ERRORS * error:
        yield Advice(
            "note" if e.too_few else "good",
            f"The model beats a constant covariance by {estimate(gain, error)} nats per target: "
            "it matters that the uncertainty varies with the inputs.",
            "",
        )
        return
    better = gain < -STANDARD_ERRORS * error
    finding = (
        f"A constant covariance does {'better' if better else 'as well'}: the model "
        f"{'loses' if better else 'gains'} {estimate(abs(gain) if better else gain, error)} "
        "nats per target relative to it"
    )
    if against := _better_scores(e):
        yield _of_models(
            e, "note", f"{finding}; but the model has a better {against}.", _disagreement(e)
        )
        return
    yield _of_models(
        e,
        "act",
        f"{finding}.",
        _simpler_covariance(e),
    )


def _simpler_covariance(e: Evidence) -> str:
    if e.chosen_from:
        return (
            "This was the best of the compared structures on held-out rows, but the test "
            "rows do not confirm that: with so little difference between "
            f"{joined(e.chosen_from)}, train on more rows."
        )
    return (
        "Use the constant covariance, which is simpler, or constant correlations (--covariance "
        "auto tries both, for up to 100 targets, on held-out rows; "
        f'{PYTHON}(constant="covariance") or "shape"), or train on more rows.'
    )


def _better_scores(e: Evidence) -> str:
    """Describe the proper scores that contradict the likelihood of the constant covariance."""
    names = {"crps": "CRPS", "energy_score": "energy score"}
    return joined([
        f"{names[score]} ({estimate(gain, error)} sd of y lower)"
        for score, (gain, error) in e.comparison.other_gains[CONSTANT].items()
        if gain > STANDARD_ERRORS * error
    ])  # fmt: skip


def _disagreement(e: Evidence) -> str:
    if e.smallest_eigenvalue < SINGULAR:
        return (
            "The constant covariance is nearly singular (smallest eigenvalue of its correlations: "
            f"{number(e.smallest_eigenvalue, 1)}), so that one direction decides its likelihood. "
            "Leave out a target that the others determine."
        )
    return "Do not choose by likelihood alone: the model's samples and intervals are better."


def _diagonal(e: Evidence) -> Iterator[Advice]:
    if len(e.calibration.after.target_names) == 1:
        return
    if DIAGONAL in e.itself:
        yield Advice(
            "note",
            "The chosen covariance is diagonal: targets are predicted as independent given the "
            "inputs. --covariance auto, the default, chooses it when correlations do not help on "
            "held-out rows.",
            "",
        )
    if DIAGONAL not in e.comparison.gains:
        return
    gain, error = e.comparison.gains[DIAGONAL]
    if gain > STANDARD_ERRORS * error:
        yield Advice(
            "note" if e.too_few else "good",
            f"The model beats the diagonal model by {estimate(gain, error)} nats per target: "
            "correlations matter.",
            "",
        )
        return
    better = gain < -STANDARD_ERRORS * error
    yield _of_models(
        e,
        "act" if better else "note",
        f"The diagonal model does {'better' if better else 'as well'}: the difference is "
        f"{estimate(-gain, error)} nats per target.",
        "If the joint distribution is not needed, a diagonal covariance is simpler "
        f'(--covariance diagonal; {PYTHON}("diagonal")).',
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
            f"{number(curve.at_end(curve.val_loss))} (at the end: medians of the last 5 epochs): "
            "overfitting.",
            "keras-mvn keeps the weights of the best epoch, so nothing is lost. To improve "
            "further, use more rows, a smaller network or dropout "
            "(--hidden 32,32 or --dropout 0.1; "
            f"{PYTHON}(hidden=(32, 32)) or (dropout=0.1)).",
        )
    elif curve.cut_short:
        yield Advice(
            "act",
            f"The validation loss was at its best in epoch {curve.best + 1} of "
            f"{len(curve.loss)}: training may have been cut short.",
            f"Train for more epochs (--epochs {2 * len(curve.loss)}; "
            f"{PYTHON}(epochs={2 * len(curve.loss)})).",
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
        "Add rows or inputs for this part; or, in Python, use regions whose coverage holds in each "
        "part of that input: keras_mvn.calibration.MondrianConformal.",
    )


def _few_rows(e: Evidence) -> Iterator[Advice]:
    n = e.calibration.after.rows
    if e.too_few:
        yield Advice(
            "note",
            f"{plural(n, 'test row')} tell{'s' if n == 1 else ''} us little: treat what follows "
            "as hints.",
            "Use a larger table, or repeat the fit with other test rows (--seed 1, --seed 2, …; "
            "in Python: with other rows held out) and see which findings persist.",
            first=True,
        )
    elif n < FEW_ROWS:
        error = np.sqrt(LEVEL * (1 - LEVEL) / n)
        yield Advice(
            "note",
            f"With {plural(n, 'test row')} the coverage of a 90 % region is known only to about "
            f"±{100 * STANDARD_ERRORS * error:.0f} points.",
            "Before choosing between similar models, use a larger table, or repeat the fit with "
            "other test rows (--seed 1, --seed 2, …; in Python: with other rows held out).",
        )


_RULES: tuple[Callable[[Evidence], Iterator[Advice]], ...] = (
    _not_finite,
    _outside,
    _size,
    _tails,
    _intervals,
    _bias,
    _slices,
    _copies,
    _constant,
    _diagonal,
    _recalibration,
    _overfitting,
    _unexplained,
    _few_rows,
)
