"""Pictures of predicted distributions. Matplotlib; every function draws on axes passed in.

Install with `pip install "keras-mvn[plots]"`. Colors are Okabe and Ito's, told apart by people
with color-blindness.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mvn._core.checks import probability, whole
from keras_mvn._core.chi_square import chi_square_cdf, chi_square_quantile
from keras_mvn._core.targets import (
    observations,
    observed_targets,
    position,
    positions,
    target_names_of,
)
from keras_mvn._core.types import Array
from keras_mvn.calibration._rows import calibration_rows
from keras_mvn.distributions import MultivariateNormal

__all__ = [
    "COLORS",
    "chi_square_qq",
    "conditioning",
    "correlation_heatmap",
    "ellipses",
    "intervals",
    "joint_calibration",
    "marginal_calibration",
    "pairs_by_correlation",
    "pit_histogram",
    "standardized_residuals",
]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's palette, strongest first."""


_LETTERS = 40
"""Of all names that fit side by side below a picture."""


def ellipses(
    ax: Any,
    normal: MultivariateNormal,
    pair: tuple[Any, Any],
    *,
    y: Any = None,
    level: float = 0.9,
    rows: int = 6,
) -> None:
    """Ellipses of two targets for the first rows of a batch, and what was observed.

    Each ellipse holds its pair of targets with probability `level`: its axes are those of the
    2 × 2 marginal covariance, its radius √χ²₂(level).

    Args:
        ax: matplotlib axes.
        normal: a batch of distributions.
        pair: names or indices of the targets on the x and y axes.
        y: (rows, d), what was observed; drawn as points in the color of their ellipse, joined to
            its center.
        level: probability of an ellipse.
        rows: how many rows to draw.

    Raises:
        ValueError: one target twice, not one batch axis, or y of another shape.

    """
    if len(normal.batch_shape) != 1:
        raise ValueError(
            f"ellipses needs a batch of distributions; received batch shape {normal.batch_shape}."
        )
    index = _two_targets(normal, pair)
    observed = None if y is None else _observed(y, normal)[..., index]
    margins = normal.marginal(index)
    for row in range(min(rows, len(normal))):
        color = COLORS[row % len(COLORS)]
        _ellipse(ax, margins[row], level, color=color, linewidth=1.2)
        if observed is not None:
            center, point = margins[row].mean, observed[row]
            ax.plot(*zip(center, point, strict=True), color=color, linewidth=0.8, alpha=0.6)
            ax.plot(*point, "o", color=color, markersize=5)
    _name_axes(ax, normal, index)


def conditioning(
    ax: Any,
    normal: MultivariateNormal,
    values: Mapping[Any, Any],
    pair: tuple[Any, Any],
    *,
    variance: Any = None,
    y: Any = None,
    level: float = 0.9,
) -> None:
    """Two targets before (dashed) and after (filled) others were measured, for one row.

    Args:
        ax: matplotlib axes.
        normal: one distribution.
        values: target → measured value, as `MultivariateNormal.condition` takes it.
        pair: names or indices of the targets on the x and y axes; not measured exactly.
        variance: of the measurements' errors, as `condition` takes it.
        y: (d,), what the targets turned out to be; drawn as a point.
        level: probability of the ellipses.

    Raises:
        ValueError: a batch, one target twice, or what `condition` refuses.

    """
    if normal.batch_shape:
        raise ValueError(
            f"conditioning draws one distribution; received batch shape {normal.batch_shape}. "
            "Choose a row: normal[0]."
        )
    index = _two_targets(normal, pair)
    names = target_names_of(normal.target_names, normal.event_size)
    named = normal.with_names(names)  # indices change with conditioning
    chosen = [names[i] for i in index]
    before, after = named.marginal(chosen), named.condition(values, variance).marginal(chosen)
    _ellipse(ax, before, level, color="0.4", linestyle="--", label="before")
    told = ", ".join(
        f"{names[position(target, names, len(names))]} = {float(value):.4g}"
        for target, value in values.items()
    )
    _ellipse(ax, after, level, color=COLORS[0], fill=True, label=f"given {told}")
    ax.plot(*before.mean, "+", color="0.4", markersize=9)
    ax.plot(*after.mean, "+", color=COLORS[0], markersize=9)
    if y is not None:
        ax.plot(*_observed(y, normal)[index], "o", color=COLORS[1], label="observed")
    _name_axes(ax, normal, index)
    # Below the axes: inside, it would hide the center of the filled ellipse.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize=8)


def intervals(
    ax: Any,
    normal: MultivariateNormal,
    target: Any,
    *,
    index: Any = None,
    y: Any = None,
    levels: float | Sequence[float] = (0.5, 0.9),
) -> None:
    """One target along an index, such as time: mean, central intervals, what was observed.

    Args:
        ax: matplotlib axes.
        normal: a batch with one axis.
        target: name or index.
        index: (rows,) numbers or dates for the x axis; None counts the rows.
        y: (rows, d), what was observed; NaN for what was not. Points outside the widest interval
            are drawn in another color.
        levels: probability of the intervals, one or several.

    Raises:
        ValueError: an unknown target, not one batch axis, or shapes that don't fit.

    """
    one = normal.marginal(target)
    if one.event_size != 1 or len(one.batch_shape) != 1:
        raise ValueError(
            f"intervals draws one target of a batch; received target={target!r} and batch shape "
            f"{normal.batch_shape}."
        )
    at = np.arange(len(one)) if index is None else np.asarray(index)
    if at.shape != one.batch_shape:
        raise ValueError(f"index has shape {at.shape}; there are {len(one)} rows, one for each.")
    chosen = sorted(map(float, np.atleast_1d(levels)), reverse=True)
    if not chosen:
        raise ValueError("levels must hold at least one probability.")
    for k, level in enumerate(chosen):
        lower, upper = one.interval(level)
        style = {"color": COLORS[0], "alpha": 1.0 - 0.8 ** (k + 1), "linewidth": 0}
        label = f"{100 * level:g} % interval"
        ax.fill_between(at, lower[:, 0], upper[:, 0], label=label, **style)
    ax.plot(at, one.mean[:, 0], color=COLORS[0], linewidth=1.2, label="mean")
    (j,) = positions(target, normal.target_names, normal.event_size)
    if y is not None:
        values = _observed(y, normal)[:, j]
        seen = ~np.isnan(values)
        lower, upper = one.interval(chosen[0])
        inside = (values >= lower[:, 0]) & (values <= upper[:, 0])
        for rows, color, label in (
            (seen & inside, "black", "observed"),
            (seen & ~inside, COLORS[1], "observed, outside"),
        ):
            ax.plot(at[rows], values[rows], ".", color=color, markersize=4, label=label)
    ax.set_ylabel(target_names_of(normal.target_names, normal.event_size)[j])
    if np.issubdtype(at.dtype, np.datetime64):
        ax.figure.autofmt_xdate()
    ax.legend(fontsize=8)


def standardized_residuals(
    ax: Any, normal: MultivariateNormal, y: Any, pair: tuple[Any, Any], *, level: float = 0.9
) -> None:
    """Errors of two targets in predicted standard deviations, and what the model says of them.

    Each point is (y − μ)/σ of a row. The solid ellipse is that of the mean predicted correlation,
    the dashed one that of the points: if the covariance is right they agree.

    Args:
        ax: matplotlib axes.
        normal: a batch of distributions.
        y: (rows, d), what was observed.
        pair: names or indices of the targets on the x and y axes.
        level: probability of the ellipses.

    Raises:
        ValueError: one target twice, or shapes that don't fit.

    """
    index = _two_targets(normal, pair)
    errors = (_observed(y, normal) - normal.mean) / normal.stddev
    points = errors[..., index].reshape(-1, 2)
    points = points[~np.isnan(points).any(axis=-1)]
    if len(points) < 3:
        raise ValueError(
            f"standardized_residuals needs at least 3 rows in which both targets were observed; "
            f"received {len(points)}."
        )
    size = float(np.clip(4000.0 / len(points), 3.0, 16.0))
    ax.scatter(*points.T, s=size, color=COLORS[0], alpha=0.5, linewidths=0)
    correlation = _mean_correlation(normal)[np.ix_(index, index)]
    predicted = MultivariateNormal([0.0, 0.0], covariance=correlation)
    found = MultivariateNormal(points.mean(axis=0), covariance=np.cov(points.T))
    _ellipse(ax, predicted, level, color="black", label="predicted")
    _ellipse(ax, found, level, color=COLORS[1], linestyle="--", label="found")
    _name_axes(ax, normal, index, "error of {} (predicted sd)")
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=8)


def _observed(y: Any, normal: MultivariateNormal) -> Array:
    """What was observed for each distribution, NaN where nothing was: the shape of the means."""
    values, seen = observed_targets(y, "marginalize", normal.target_names)
    values = observations(values, normal.mean)
    return values if seen is None else np.where(seen > 0, values, np.nan)


def _two_targets(normal: MultivariateNormal, pair: tuple[Any, Any]) -> np.ndarray:
    index = positions(pair, normal.target_names, normal.event_size)
    if len(index) != 2:
        raise ValueError(f"pair={pair!r} must be two different targets.")
    return index


def _ellipse(
    ax: Any,
    normal: MultivariateNormal,
    level: float,
    *,
    fill: bool = False,
    color: Any,
    **style: Any,
) -> None:
    """The outline of a distribution of two targets."""
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    radius = np.sqrt(chi_square_quantile(probability(level, "level"), 2))
    circle = radius * np.stack([np.cos(angle), np.sin(angle)])
    outline = normal.mean[:, None] + normal.scale_tril @ circle
    if fill:
        ax.fill(*outline, color=color, alpha=0.18, linewidth=0)
    ax.plot(*outline, color=color, **style)


def _name_axes(
    ax: Any, normal: MultivariateNormal, index: np.ndarray, template: str = "{}"
) -> None:
    names = target_names_of(normal.target_names, normal.event_size)
    ax.set_xlabel(template.format(names[index[0]]))
    ax.set_ylabel(template.format(names[index[1]]))


def correlation_heatmap(ax: Any, normal: MultivariateNormal) -> None:
    """The mean predicted correlation matrix of a batch, from −1 (blue) to 1 (red), with figures."""
    correlation = _mean_correlation(normal)
    names = target_names_of(normal.target_names, normal.event_size)
    ax.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    crowded = sum(map(len, names)) > _LETTERS
    ax.set_xticks(range(len(names)), names, rotation=90 if crowded else 0)
    ax.set_yticks(range(len(names)), names)
    for i, row in enumerate(correlation):
        for j, value in enumerate(row):
            color = "white" if abs(value) > 0.6 else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)


def joint_calibration(
    ax: Any, predictions: MultivariateNormal | Mapping[str, MultivariateNormal], y: Any
) -> None:
    """Observed against promised coverage of the joint ellipsoids, one curve per prediction.

    On the diagonal a prediction is calibrated; below it, overconfident. The grey band holds 90 %
    of the curves that a calibrated model would give with this many rows (pointwise).

    Args:
        ax: matplotlib axes.
        predictions: distributions for the rows of y, or name → distributions.
        y: (rows, d), what was observed; NaN for what was not: such a row counts in its margin.

    """
    pits = {name: _joint_pit(normal, y) for name, normal in _by_name(predictions).items()}
    _reliability(ax, pits, "promised coverage", "observed coverage")


def marginal_calibration(ax: Any, normal: MultivariateNormal, y: Any) -> None:
    """Observed against promised coverage of each target's central intervals, one curve per target.

    As `joint_calibration`, target by target: these can be right while the joint one is wrong.

    Args:
        ax: matplotlib axes.
        normal: distributions for the rows of y.
        y: (rows, d), what was observed; NaN for what was not.

    """
    rows = calibration_rows(normal, y, "marginalize", "marginal_calibration")
    squared = rows.standardized() ** 2
    names = target_names_of(normal.target_names, normal.event_size)
    pits = {
        name: _chi_square_pit(squared[seen, j], np.ones(seen.sum(), int))
        for j, (name, seen) in enumerate(zip(names, rows.is_observed.T, strict=True))
    }
    _reliability(ax, pits, "promised coverage of intervals", "observed coverage")


def pit_histogram(ax: Any, normal: MultivariateNormal, y: Any, *, bins: int = 20) -> None:
    """Histogram of F(q), F the χ²_d distribution function, q the squared Mahalanobis distance.

    Flat if the joint distribution is calibrated; high on the right: overconfident; high on the
    left: underconfident. The grey band holds 90 % of the bars of a calibrated model (each alone).

    Args:
        ax: matplotlib axes.
        normal: distributions for the rows of y.
        y: (rows, d), what was observed; NaN for what was not: such a row counts in its margin.
        bins: number of bars.

    """
    pit = _joint_pit(normal, y)
    n, share = len(pit), 1.0 / whole(bins, "bins", "a number of bars", 2)
    half_width = 1.645 * np.sqrt(share * (1.0 - share) / n) / share
    ax.axhspan(1.0 - half_width, 1.0 + half_width, color="0.9", linewidth=0)
    ax.hist(pit, bins=np.linspace(0.0, 1.0, bins + 1), density=True, color=COLORS[0], alpha=0.7)
    ax.axhline(1.0, color="0.4", linewidth=1)
    ax.set(xlim=(0, 1), xlabel="joint PIT, F(squared distance)", ylabel="density")


def chi_square_qq(
    ax: Any, predictions: MultivariateNormal | Mapping[str, MultivariateNormal], y: Any
) -> None:
    """Quantiles of the squared Mahalanobis distances against those of χ²_d.

    On the diagonal a prediction is calibrated, above it overconfident; a bend at the upper end
    shows tails heavier than a normal's.

    Args:
        ax: matplotlib axes.
        predictions: distributions for the rows of y, or name → distributions.
        y: (rows, d), what was observed. Rows with NaN are left out.

    """
    top, named = 0.0, _by_name(predictions)
    for color, (name, normal) in zip(itertools.cycle(COLORS), named.items(), strict=False):
        complete = calibration_rows(normal, y, "marginalize", "chi_square_qq").complete()
        squared = np.sort(complete.squared_distances)
        levels = (np.arange(len(squared)) + 0.5) / len(squared)
        expected = [chi_square_quantile(float(p), normal.event_size) for p in levels]
        ax.plot(expected, squared, ".", color=color, markersize=3, label=name)
        top = max(top, expected[-1])
    ax.plot([0.0, top], [0.0, top], color="0.5", linewidth=1)
    ax.set(xlabel="expected squared distance (χ²)", ylabel="observed squared distance")
    ax.legend(loc="upper left", frameon=False, fontsize=8)


def _by_name(predictions: Any) -> Mapping[str, MultivariateNormal]:
    if isinstance(predictions, MultivariateNormal):
        return {"predicted": predictions}
    if not isinstance(predictions, Mapping) or not predictions:
        raise ValueError(
            "predictions must be distributions, or name → distributions; received "
            f"{type(predictions).__name__} {predictions!r}."
        )
    return predictions


def _joint_pit(normal: MultivariateNormal, y: Any) -> Array:
    rows = calibration_rows(normal, y, "marginalize", "the joint PIT", every_target=False)
    dof = rows.is_observed.sum(axis=-1)
    return _chi_square_pit(rows.squared_distances[dof > 0], dof[dof > 0])


def _chi_square_pit(squared: Array, dof: np.ndarray) -> Array:
    return np.array([chi_square_cdf(float(q), int(m)) for q, m in zip(squared, dof, strict=True)])


def _reliability(ax: Any, pits: Mapping[str, Array], xlabel: str, ylabel: str) -> None:
    """Share of the values below each level, one curve per set of values, and a 90 % band."""
    levels = np.linspace(0.0, 1.0, 101)
    n = min(len(pit) for pit in pits.values())
    half_width = 1.645 * np.sqrt(levels * (1.0 - levels) / n)
    ax.fill_between(levels, levels - half_width, levels + half_width, color="0.9", linewidth=0)
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=1)
    for color, (name, pit) in zip(itertools.cycle(COLORS), pits.items(), strict=False):
        observed = np.searchsorted(np.sort(pit), levels, side="right") / len(pit)
        ax.plot(levels, observed, color=color, label=name)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel=ylabel)
    ax.set_aspect("equal")
    ax.legend(loc="upper left", frameon=False, fontsize=8)


def pairs_by_correlation(normal: MultivariateNormal) -> list[tuple[int, int]]:
    """Pairs of targets, the most strongly correlated (on average) first."""
    correlation = _mean_correlation(normal)
    rows, columns = np.triu_indices(normal.event_size, 1)
    order = np.argsort(-np.abs(correlation[rows, columns]))
    return [(int(rows[i]), int(columns[i])) for i in order]


def _mean_correlation(normal: MultivariateNormal) -> Array:
    """(d, d), the mean over all batch axes."""
    d = normal.event_size
    return normal.correlation.reshape(-1, d, d).mean(axis=0)
