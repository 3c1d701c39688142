"""The function that computes all scores of a batch of predictions, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_mvn._core.checks import as_numpy, probability
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions.base import Distribution
from keras_mvn.scores._cells import cell_widths
from keras_mvn.scores._estimates import Estimate, mean_of, skill_of, standard_error
from keras_mvn.scores._evaluation import Evaluation, Score
from keras_mvn.scores._measures import SCALED, Evidence, Measure, measures
from keras_mvn.scores._observations import Observations, target_units

__all__ = ["evaluate"]


def evaluate(
    answer: Distribution,
    y: Any,
    missing: str = "raise",
    levels: Sequence[float] | float = (0.5, 0.9, 0.95),
    reference: Distribution | None = None,
    target_scale: Any = None,
    scores: Sequence[str] | None = None,
    resolution: Any = None,
) -> Evaluation:
    """Return all scores of these predictions, with standard errors, in one table.

    | row | meaning |
    | --- | --- |
    | `nll`, `nll_per_target` | log score of a row; the same divided by its number of targets |
    | `cell_nll`, `cell_nll_per_target` | with `resolution`: log score of the cells of rounded \
values |
    | `marginal_nll` | log score of each target alone; its excess over `nll_per_target` is the \
gain from correlations |
    | `dss` | Dawid–Sebastiani score |
    | `energy_score`, `variogram_score` | scores of all targets jointly, exact; p = 0.5 |
    | `crps`, `interval_score_90` | scores of single targets; the latter of the central interval |
    | `rmse` | root mean squared error of the predicted means |
    | `conditional_error` | mean error of a target given all others (TAC) |
    | `coverage_90`, `marginal_coverage_90` | share of rows inside the joint ellipsoid; share of \
values inside their target's interval |
    | `calibration_error` | mean over all levels of `|coverage of the ellipsoid − level|` |
    | `log_volume_90` | mean log-volume of the ellipsoid of all targets |

    Scores that add or average over targets do so in units of `target_scale`; scores of a single
    target are in its own units. Standard errors assume independent rows: where rows depend on each
    other, the true ones are larger (`skill_score` and `mean_difference` take groups of rows). With
    missing values in y, each row counts by how much of it was observed; rows without any observed
    value are left out.

    10⁵ rows of ten targets take seconds. The variogram score has d(d − 1)/2 pairs: for thousands
    of targets, leave it out with `scores`.

    Args:
        answer: predicted distributions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        missing: "marginalize" treats NaN in y as missing: the scores are those of the marginal
            distributions of the observed targets. By default NaN is an error.
        levels: probabilities of the intervals and ellipsoids.
        reference: other predictions of the same targets, one distribution for all rows or one per
            row. This adds their means, the paired differences and, for scores whose best value is
            0, the skill 1 − mean/reference.
        target_scale: a number or (d,); None takes the standard deviations of this y. To compare
            data sets, pass those of the training data.
        scores: list of names, the rows to compute; None for all.
        resolution: width δ of the cells of rounded values, a number or (d,), such as
            `head.resolution`; adds `cell_nll` as in `cell_log_score`. None, or 0 everywhere, leaves
            it out.

    Raises:
        ValueError: shapes do not fit, values are not finite, levels are not between 0 and 1, a
            score is unknown, nothing was observed, or the values of a target do not vary and there
            is no `target_scale`.
        ImportError: SciPy is not installed.

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
    >>> y = normal.sample(1000, seed=1)
    >>> found = evaluate(normal, y, scores=["nll", "crps", "coverage_90"])
    >>> print(found)
    score          mean  ± s.e.  unit     target 0  target 1
    --------------------------------------------------------
    nll           4.499   0.034  nats
    crps         0.5623    0.01  sd of y     1.122     1.678
    coverage_90   0.898  0.0096  share
    <BLANKLINE>
    1000 rows, 2 targets. Lower is better; coverages should equal their level.
    sd of y: target 0 1.995, target 1 2.985.
    Target columns are in the units of y; NLL is in nats, coverage is a share.

    """
    rows = Observations.read(answer, y, missing)
    widths = None if resolution is None else cell_widths(resolution, rows.event_size)
    cells = widths is not None and bool(widths.any())
    wanted = _chosen(
        measures([probability(p, "levels") for p in np.atleast_1d(levels).tolist()], cells),
        scores,
    )
    shape = (*rows.batch_shape, rows.event_size)
    others = None
    if reference is not None:
        answer.check_same_targets(reference)  # raises an error that explains any mismatch
        others = Observations.read(reference, np.broadcast_to(as_numpy(y), shape), missing)
        if others.batch_shape != rows.batch_shape:
            raise ValueError(
                f"reference has batch shape {reference.batch_shape}; it must have the batch shape "
                f"of the evaluated rows, {rows.batch_shape}."
            )
    keep = rows.count > 0
    if not keep.any():
        raise ValueError("evaluate needs at least one row with an observed value.")
    rows = rows[keep]
    units = _default_units(rows) if target_scale is None else target_units(target_scale, shape[-1])
    mine = Evidence(rows, units, widths)
    theirs = None if others is None else Evidence(others[keep], units, widths)
    names = target_names_of(answer.target_names, rows.event_size)
    scale_name = _scale_name(target_scale, units)
    return Evaluation(
        {
            name: _score(measure, mine, theirs, names, scale_name)
            for name, measure in wanted.items()
        },
        len(rows),
        tuple(names),
        units,
        scale_name,
    )


def _chosen(known: dict[str, Measure], names: Sequence[str] | None) -> dict[str, Measure]:
    if names is None:
        return known
    unknown = [] if isinstance(names, str) else [name for name in names if name not in known]
    if unknown or isinstance(names, str):
        raise ValueError(f"scores={names!r} must be a list of names from {list(known)}.")
    return {name: known[name] for name in names}


def _default_units(rows: Observations) -> Array:
    """Return the standard deviations of the observed values of y about their mean: (d,)."""
    seen = np.ones(rows.y.shape) if rows.observed is None else rows.observed
    mean = mean_of(rows.of_observed(rows.y), seen).value
    deviation = np.where(seen > 0, rows.y - mean, 0.0)
    units = np.sqrt(mean_of(deviation**2, seen).value)
    if not (units > 0).all():
        names = target_names_of(rows.answer.target_names, rows.event_size)
        constant = [name for name, unit in zip(names, units, strict=True) if not unit > 0]
        raise ValueError(
            f"The values of these targets do not vary in y, so they give no scale: {constant}. "
            "Pass target_scale, for example the standard deviations in the training data."
        )
    return np.asarray(units)


def _scale_name(target_scale: Any, units: Array) -> str:
    if target_scale is None:
        return "sd of y"
    return "unit of y" if (units == 1.0).all() else "target_scale"


def _score(
    measure: Measure, mine: Evidence, theirs: Evidence | None, names: list[str], scale_name: str
) -> Score:
    found = measure.of(mine)
    unit = scale_name if measure.unit == SCALED else measure.unit
    score = Score(*_numbers(found.overall), unit)
    if found.targets is not None:
        score = replace(
            score,
            per_target=_named(found.targets.value, names),
            per_target_standard_error=_named(standard_error(found.targets), names),
            per_target_unit=measure.target_unit,
        )
    if theirs is None:
        return score
    return _compared(score, found.overall, measure.of(theirs).overall, measure.zero)


def _named(values: Array, names: list[str]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _compared(score: Score, mine: Estimate, theirs: Estimate, zero: bool) -> Score:
    """Add the reference's score for the same rows, the difference and the skill."""
    gap = Estimate(mine.value - theirs.value, mine.influence - theirs.influence)
    difference, error = _numbers(gap)
    score = replace(
        score,
        reference=float(theirs.value),
        difference=difference,
        difference_standard_error=error,
    )
    if not zero:
        return score
    skill, error = _numbers(skill_of(mine, theirs))
    return replace(score, skill=skill, skill_standard_error=error)


def _numbers(estimate: Estimate) -> tuple[float, float]:
    return float(estimate.value), float(standard_error(estimate))
