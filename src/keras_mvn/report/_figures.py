"""The figures of the HTML report; each also states its message in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from markupsafe import Markup

from keras_mvn._core.types import Array
from keras_mvn.calibration import Diagnosis
from keras_mvn.distributions import Distribution
from keras_mvn.report._calibration import Calibration, furthest_first
from keras_mvn.report._comparison import LEVEL
from keras_mvn.report._dependence import SHOWN, Dependence, Pair
from keras_mvn.report._format import number, percent, plural, signed
from keras_mvn.report._learning import Learning
from keras_mvn.report._svg import Chart, DotRow, dot_plot

__all__ = [
    "Figure",
    "calibration_figures",
    "ellipse_figure",
    "heat",
    "learning_figure",
    "pair_figure",
]

MODEL, BEFORE, FOUND = "c0", "c1", "c1"
"""CSS classes in style.css."""

ROWS = 6
"""Number of ellipses in one figure."""


@final
@dataclass(frozen=True)
class Figure:
    """A drawing, its title, its message, and what its colors mean."""

    title: str
    svg: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    """(CSS class, meaning) of each color."""


def _figure(title: str, svg: str, caption: str, *legend: tuple[str, str]) -> Figure:
    return Figure(title, Markup(svg), caption, legend)


# --- calibration ---------------------------------------------------------------------------------


def calibration_figures(found: Calibration) -> list[Figure]:
    """Return the figures of joint and marginal coverage and of the PIT."""
    return [_joint(found), _histogram(found), _marginal(found), _targets(found)]


def _joint(found: Calibration) -> Figure:
    chart = _reliability_axes("rows in the region, %")
    _expected(chart, found.after)
    legend = [(MODEL, "model")]
    if found.before is not None:
        _curve(chart, found.before.joint.levels, found.before.joint.fraction, BEFORE)
        legend.append((BEFORE, "before recalibration"))
    _curve(chart, found.after.joint.levels, found.after.joint.fraction, MODEL)
    at = found.after.joint.at(LEVEL).fraction[0]
    caption = f"The 90 % region holds {percent(at, 1)} of {plural(found.after.rows, 'row')}"
    if found.before is not None:
        caption += f"; before recalibration, {percent(found.before.joint.at(LEVEL).fraction[0], 1)}"
    caption += ". Below the diagonal: overconfident. Gray: range of 95 % of calibrated models."
    return _figure("All targets together", chart.svg(caption), caption, *legend)


def _marginal(found: Calibration) -> Figure:
    chart = _reliability_axes("values in the intervals, %")
    after = found.after.marginal
    _expected_marginal(chart, found.after)
    worst = int(furthest_first(found.after)[0])
    for j in range(min(after.fraction.shape[1], 100)):
        if j != worst:
            _curve(chart, after.levels, after.fraction[:, j], "faint")
    _curve(chart, after.levels, after.fraction[:, worst], MODEL)
    name = found.after.target_names[worst]
    d = len(found.after.target_names)
    caption = (
        f"The 90 % intervals of {name} hold {percent(after.at(LEVEL).fraction[0, worst], 1)}"
        + (", the furthest from nominal coverage" if d > 1 else "")
        + ". Gray: range of 95 % of calibrated models."
    )
    legend = [
        (MODEL, name),
        *([("faint", "the other target" if d == 2 else "the other targets")] if d > 1 else []),
    ]
    return _figure("Each target alone", chart.svg(caption), caption, *legend)


def _reliability_axes(ylabel: str) -> Chart:
    return Chart((0, 100), (0, 100), "nominal coverage, %", ylabel, (400, 340))


def _curve(chart: Chart, levels: Array, fraction: Array, css: str) -> None:
    chart.line(
        100 * np.concatenate([[0], levels, [1]]), 100 * np.concatenate([[0], fraction, [1]]), css
    )


def _expected(chart: Chart, found: Diagnosis) -> None:
    low, high = found.joint.expected_band()
    _band(chart, found.joint.levels, low, high)


def _expected_marginal(chart: Chart, found: Diagnosis) -> None:
    fewest = int(np.argmin(found.marginal.rows))
    low, high = found.marginal.expected_band()
    _band(chart, found.marginal.levels, low[:, fewest], high[:, fewest])


def _band(chart: Chart, levels: Array, low: Array, high: Array) -> None:
    x, below, above = (100 * np.concatenate([[0], v, [1]]) for v in (levels, low, high))
    chart.area(x, below, above, "band")
    chart.line([0, 100], [0, 100], "reference")


def _histogram(found: Calibration) -> Figure:
    n = found.after.rows
    bins = int(np.clip(n // 10, 4, 20))
    edges = np.linspace(0.0, 1.0, bins + 1)
    shares = [
        None if one is None else one.histogram(bins) * bins / one.rows
        for one in (found.after, found.before)
    ]
    after, before = shares
    assert after is not None
    half_width = 1.96 * np.sqrt(bins / n * (1 - 1 / bins))
    top = max(1 + half_width, *(float(s.max()) for s in shares if s is not None))
    chart = Chart(
        (0, 1),
        (0, 1.05 * top),
        "χ² probability of the squared distance",
        "rows, relative to expected",
        (400, 340),
    )
    chart.area([0, 1], [max(1 - half_width, 0)] * 2, [1 + half_width] * 2, "band")
    chart.bars(edges, after, "bar c0")
    chart.line([0, 1], [1, 1], "reference")
    legend = [(MODEL, "model")]
    if before is not None:
        chart.line(np.repeat(edges, 2)[1:-1], np.repeat(before, 2), BEFORE)
        legend.append((BEFORE, "before recalibration"))
    caption = (
        f"The last of {bins} bars, the rows furthest off, has {number(float(after[-1]))} times the "
        "rows of a calibrated model, for which all bars are 1. High on the right: overconfident. "
        "Gray: range of 95 % of calibrated models, for each bar alone."
    )
    return _figure("PIT histogram", chart.svg(caption), caption, *legend)


def _targets(found: Calibration) -> Figure:
    """Draw the coverage of 90 % intervals, target by target, with its confidence interval."""
    order = np.sort(furthest_first(found.after)[:SHOWN])
    at = found.after.marginal.at(LEVEL)
    low, high = (100 * end[0] for end in at.band())
    before = None if found.before is None else 100 * found.before.marginal.at(LEVEL).fraction[0]
    after = 100 * at.fraction[0]
    rows = []
    for j in order:
        dots = [(after[j], MODEL)] if before is None else [(before[j], BEFORE), (after[j], MODEL)]
        rows.append(DotRow(found.after.target_names[j], dots, [(low[j], high[j], MODEL)]))
    shown = np.concatenate([low[order], high[order], after[order]])
    shown = shown if before is None else np.concatenate([shown, before[order]])
    fewest = int(np.argmin(found.after.marginal.rows))
    band = [100 * float(end[0, fewest]) for end in at.expected_band()]
    ends = (max(0.0, min(shown.min(), band[0]) - 2), min(100.0, max(shown.max(), band[1]) + 2))
    worst = int(order[np.argmax(np.abs(after[order] - 90))])
    caption = (
        f"From {number(after[order].min())} % to {number(after[order].max())} % of the values are "
        f"in their target's 90 % interval; {found.after.target_names[worst]} is furthest from 90. "
        "Bars: 95 % confidence intervals. Gray: range of 95 % of calibrated models."
    )
    if len(found.after.target_names) > SHOWN:
        caption += f" Shown: the {SHOWN} targets furthest from 90 %."
    legend = [(MODEL, "model"), *([(BEFORE, "before recalibration")] if before is not None else [])]
    svg = dot_plot(
        rows,
        ends,
        "values in the 90 % interval, %",
        caption,
        reference=90,
        band=(band[0], band[1]),
    )
    return _figure("90 % intervals by target", svg, caption, *legend)


# --- dependence ----------------------------------------------------------------------------------


def heat(value: float) -> str:
    """Background color of a correlation: blue below 0, red above, light enough for dark text."""
    cold, warm, none = (111, 176, 224), (240, 136, 104), (246, 246, 244)
    end = warm if value > 0 else cold
    share = min(abs(value), 1.0)
    mixed = (round(a + share * (b - a)) for a, b in zip(none, end, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def pair_figure(pair: Pair) -> Figure | None:
    """Draw a correlation by bins of the input that changes it most; None if there is none."""
    if pair.driver is None:
        return None
    rows = [
        DotRow(
            one.label.removeprefix("in ").removeprefix("= "),
            [(one.found, FOUND), (one.predicted, MODEL)],
            [(one.found_low, one.found_high, FOUND)],
        )
        for one in pair.bins
    ]
    numbers = np.array([(b.predicted, b.found, b.found_low, b.found_high) for b in pair.bins])
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    least, most = (f(pair.bins, key=lambda one: one.predicted) for f in (min, max))
    caption = (
        f"Predicted correlation, averaged over rows: {signed(least.predicted)} where {pair.driver} "
        f"{least.label}, {signed(most.predicted)} where {most.label}. Empirical: correlation of "
        "the standardized errors, with 95 % intervals."
    )
    svg = dot_plot(
        rows,
        (max(-1.0, low - 0.05), min(1.0, high + 0.05)),
        f"correlation, by {pair.driver}",
        caption,
        reference=0.0 if low < 0 < high else None,
    )
    legend = ((MODEL, "predicted"), (FOUND, "empirical, of the errors"))
    return _figure(f"{pair.names[0]} and {pair.names[1]}", svg, caption, *legend)


def ellipse_figure(
    normal: Distribution, y: Array, labels: np.ndarray, found: Dependence
) -> Figure | None:
    """Draw the 90 % regions of some rows for the most correlated pair, and the observed values."""
    if not found.pairs:
        return None
    names = found.pairs[0].names
    rows = np.unique(np.linspace(0, len(normal) - 1, ROWS).astype(int))
    margins = normal[rows].marginal(list(names))
    observed = y[rows][:, [(normal.target_names or ()).index(name) for name in names]]
    regions = margins.region(LEVEL)
    outlines = [regions[k].outline() for k in range(len(rows))]
    curves = np.concatenate([curve for pieces in outlines for curve in pieces], axis=1)
    chart = Chart(*_ends(curves, observed), *names, (400, 340))
    for k, (pieces, mean, point) in enumerate(zip(outlines, margins.center, observed, strict=True)):
        for curve in pieces:
            chart.outline(curve[0], curve[1], f"ellipse c{k}")
        if np.isfinite(point).all():
            chart.line([mean[0], point[0]], [mean[1], point[1]], f"thin c{k}")
            chart.dot(point[0], point[1], f"c{k}")
    there = np.isfinite(observed).all(axis=1)
    inside = regions.contains(np.nan_to_num(observed)) & there
    caption = (
        f"90 % regions of {plural(len(rows), 'test row')}; dots: observed, "
        f"{int(inside.sum())} of {int(there.sum())} inside."
    )
    legend = tuple((f"c{k}", f"row {labels[i]}") for k, i in enumerate(rows))
    title = f"{names[0]} and {names[1]} in individual rows"
    return _figure(title, chart.svg(caption), caption, *legend)


def _ends(curves: Array, points: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of both axes, around curves (2, m) and points (n, 2) that may be NaN."""
    low = np.fmin(curves.min(axis=1), np.fmin.reduce(points, axis=0))
    high = np.fmax(curves.max(axis=1), np.fmax.reduce(points, axis=0))
    pad = 0.04 * (high - low)
    (x0, y0), (x1, y1) = (low - pad).tolist(), (high + pad).tolist()
    return (x0, x1), (y0, y1)


# --- learning ------------------------------------------------------------------------------------


def learning_figure(curve: Learning) -> Figure | None:
    """Draw the losses by epoch; the axis leaves out the high values of the first epochs."""
    if not curve.known:
        return None
    epochs = np.arange(1, len(curve.loss) + 1)
    lines = [curve.loss, *([curve.val_loss] if curve.validated else [])]
    values = np.concatenate(lines)
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(np.quantile(values, 0.97))
    pad = 0.05 * (high - low)
    chart = Chart((1, len(epochs)), (low - pad, high + pad), "epoch", "loss", (400, 260))
    legend = [(MODEL, "training")]
    chart.line(epochs, np.where(curve.loss <= high + pad, curve.loss, np.nan), MODEL)
    if curve.validated:
        shown = np.where(curve.val_loss <= high + pad, curve.val_loss, np.nan)
        chart.line(epochs, shown, BEFORE)
        chart.dot(curve.best + 1, float(curve.val_loss[curve.best]), BEFORE)
        legend.append((BEFORE, "validation; dot: minimum"))
    return _figure("Loss by epoch", chart.svg(curve.sentence), curve.sentence, *legend)
