"""Plots of predicted distributions with Matplotlib; every function draws on given axes.

Install with `pip install "keras-mvn[plots]"`. The colors are Okabe and Ito's, which people with
color blindness can distinguish.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.chi_square import chi_square_quantile
from keras_mvn._core.targets import (
    observations,
    observed_targets,
    position,
    positions,
    target_names_of,
)
from keras_mvn._core.types import Array
from keras_mvn.calibration._rows import calibration_rows, matched_rows
from keras_mvn.distributions import Distribution, MultivariateNormal

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
"""Maximum number of letters of all target names that fit side by side below a plot."""


def ellipses(
    ax: Any,
    normal: Distribution,
    pair: tuple[Any, Any],
    *,
    y: Any = None,
    level: float = 0.9,
    rows: int = 6,
) -> None:
    """Draw ellipses of two targets for the first rows of a batch, and their observed values.

    Each ellipse contains its pair of targets with probability `level`: its axes are those of the
    2 × 2 marginal covariance, and its radius is √χ²₂(level).

    Args:
        ax: matplotlib axes.
        normal: a batch of distributions.
        pair: names or indices of the targets on the x and y axes.
        y: (rows, d), observed values; drawn as points in the color of their ellipse, with a line to
            its center.
        level: float between 0 and 1, coverage of each ellipse.
        rows: int, number of rows to draw.

    Raises:
        ValueError: the two targets are the same, normal does not have exactly one batch axis, or
            the shape of y does not match.

    """
    if len(normal.batch_shape) != 1:
        raise ValueError(
            f"ellipses needs a batch of distributions, with one batch axis; received batch shape "
            f"{normal.batch_shape}."
        )
    index = _two_targets(normal, pair)
    observed = None if y is None else _observed(y, normal)[..., index]
    margins = normal.marginal(index)
    for row in range(min(rows, len(normal))):
        color = COLORS[row % len(COLORS)]
        _region(ax, margins[row], level, color=color, linewidth=1.2)
        if observed is not None:
            center, point = margins[row].mean, observed[row]
            ax.plot(*zip(center, point, strict=True), color=color, linewidth=0.8, alpha=0.6)
            ax.plot(*point, "o", color=color, markersize=5)
    _name_axes(ax, normal, index)


def conditioning(
    ax: Any,
    normal: Distribution,
    values: Mapping[Any, Any],
    pair: tuple[Any, Any],
    *,
    variance: Any = None,
    y: Any = None,
    level: float = 0.9,
) -> None:
    """Draw two targets before (dashed) and after (filled) others were measured, for one row.

    Args:
        ax: matplotlib axes.
        normal: one distribution.
        values: mapping from target to measured value, as in `MultivariateNormal.condition`.
        pair: names or indices of the targets on the x and y axes; not measured exactly.
        variance: variance of the measurement errors, as in `condition`.
        y: (d,), observed values of the targets; drawn as a point.
        level: float between 0 and 1, coverage of the ellipses.

    Raises:
        ValueError: normal is a batch, the two targets are the same, or `condition` raises it.

    """
    if normal.batch_shape:
        raise ValueError(
            f"conditioning draws one distribution; received batch shape {normal.batch_shape}. "
            "Pass a single row: normal[0]."
        )
    index = _two_targets(normal, pair)
    names = target_names_of(normal.target_names, normal.event_size)
    named = normal.with_names(names)  # indices change with conditioning
    chosen = [names[i] for i in index]
    before, after = named.marginal(chosen), named.condition(values, variance).marginal(chosen)
    _region(ax, before, level, color="0.4", linestyle="--", label="before")
    told = ", ".join(
        f"{names[position(target, names, len(names))]} = {float(value):.4g}"
        for target, value in values.items()
    )
    _region(ax, after, level, color=COLORS[0], fill=True, label=f"given {told}")
    ax.plot(*before.center, "+", color="0.4", markersize=9)
    ax.plot(*after.center, "+", color=COLORS[0], markersize=9)
    if y is not None:
        ax.plot(*_observed(y, normal)[index], "o", color=COLORS[1], label="observed")
    _name_axes(ax, normal, index)
    # Below the axes, because inside it would hide the center of the filled ellipse.
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize=8)


def intervals(
    ax: Any,
    normal: Distribution,
    target: Any,
    *,
    index: Any = None,
    y: Any = None,
    levels: float | Sequence[float] = (0.5, 0.9),
) -> None:
    """Draw mean, central intervals and observed values of one target along an index such as time.

    Args:
        ax: matplotlib axes.
        normal: a batch with one axis.
        target: name or index of the target.
        index: (rows,) numbers or dates for the x axis; None: row numbers.
        y: (rows, d), observed values, NaN where missing. Points outside the widest interval are
            drawn in a different color.
        levels: coverage of the intervals, one number or several.

    Raises:
        ValueError: the target is unknown, normal does not have exactly one batch axis, or shapes do
            not match.

    """
    one = normal.marginal(target)
    if one.event_size != 1 or len(one.batch_shape) != 1:
        raise ValueError(
            f"intervals draws one target of a batch; received target={target!r} and batch shape "
            f"{normal.batch_shape}."
        )
    at = np.arange(len(one)) if index is None else np.asarray(index)
    if at.shape != one.batch_shape:
        raise ValueError(f"index has shape {at.shape}; it must have one value per row, {len(one)}.")
    chosen = sorted(map(float, np.atleast_1d(levels)), reverse=True)
    if not chosen:
        raise ValueError("levels must contain at least one probability.")
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
    ax: Any, normal: Distribution, y: Any, pair: tuple[Any, Any], *, level: float = 0.9
) -> None:
    """Draw standardized errors of two targets, with the predicted and the observed ellipse.

    Each point is (y − μ)/σ of a row. The solid ellipse is that of the mean predicted correlation,
    the dashed one that of the points: they agree if the covariance is right.

    Args:
        ax: matplotlib axes.
        normal: a batch of distributions.
        y: (rows, d), observed values.
        pair: names or indices of the targets on the x and y axes.
        level: float between 0 and 1, coverage of the ellipses.

    Raises:
        ValueError: the two targets are the same, shapes do not match, or fewer than 3 rows have
            both targets.

    """
    index = _two_targets(normal, pair)
    errors = (_observed(y, normal) - normal.mean) / normal.stddev
    points = errors[..., index].reshape(-1, 2)
    points = points[~np.isnan(points).any(axis=-1)]
    if len(points) < 3:
        raise ValueError(
            f"standardized_residuals needs at least 3 rows in which both targets are observed; "
            f"received {len(points)}."
        )
    size = float(np.clip(4000.0 / len(points), 3.0, 16.0))
    ax.scatter(*points.T, s=size, color=COLORS[0], alpha=0.5, linewidths=0)
    correlation = _mean_correlation(normal)[np.ix_(index, index)]
    predicted = MultivariateNormal([0.0, 0.0], covariance=correlation)
    found = MultivariateNormal(points.mean(axis=0), covariance=np.cov(points.T))
    _region(ax, predicted, level, color="black", label="predicted")
    _region(ax, found, level, color=COLORS[1], linestyle="--", label="observed")
    _name_axes(ax, normal, index, "error of {} (predicted sd)")
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_aspect("equal")
    ax.legend(frameon=False, fontsize=8)


def _observed(y: Any, normal: Distribution) -> Array:
    """Return observed values with the shape of the means, NaN where missing."""
    values, seen = observed_targets(y, "marginalize", normal.target_names)
    values = observations(values, normal.center)
    return values if seen is None else np.where(seen > 0, values, np.nan)


def _two_targets(normal: Distribution, pair: tuple[Any, Any]) -> np.ndarray:
    index = positions(pair, normal.target_names, normal.event_size)
    if len(index) != 2:
        raise ValueError(f"pair={pair!r} must be two different targets.")
    return index


def _region(
    ax: Any, pair: Distribution, level: float, *, fill: bool = False, color: Any, **style: Any
) -> None:
    """Draw the region of a distribution of two targets, which may have several pieces."""
    for outline in pair.region(level).outline():
        if fill:
            ax.fill(*outline, color=color, alpha=0.18, linewidth=0)
        ax.plot(*outline, color=color, **style)
        style.pop("label", None)  # once in the legend


def _name_axes(ax: Any, normal: Distribution, index: np.ndarray, template: str = "{}") -> None:
    names = target_names_of(normal.target_names, normal.event_size)
    ax.set_xlabel(template.format(names[index[0]]))
    ax.set_ylabel(template.format(names[index[1]]))


def correlation_heatmap(ax: Any, normal: Distribution) -> None:
    """Draw the mean predicted correlation matrix, blue (−1) to red (1), with its values."""
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
    ax: Any, predictions: Distribution | Mapping[str, Distribution], y: Any
) -> None:
    """Plot observed against nominal coverage of joint ellipsoids, one curve per prediction.

    A prediction is calibrated on the diagonal, and overconfident below it. The gray band covers
    90 % of the curves of a calibrated model with this many rows (pointwise).

    Args:
        ax: matplotlib axes.
        predictions: distributions for the rows of y, or a mapping from name to distributions.
        y: (rows, d), observed values, NaN where missing: the marginal of the observed targets is
            used.

    """
    pits = {name: _joint_pit(normal, y) for name, normal in _by_name(predictions).items()}
    _reliability(ax, pits, "nominal coverage", "observed coverage")


def marginal_calibration(ax: Any, normal: Distribution, y: Any) -> None:
    """Plot observed against nominal coverage of central intervals, one curve per target.

    Like `joint_calibration`, but for each target: intervals can be right although the joint regions
    are wrong.

    Args:
        ax: matplotlib axes.
        normal: distributions for the rows of y.
        y: (rows, d), observed values, NaN where missing.

    """
    rows = matched_rows(normal, y, "marginalize", "marginal_calibration")
    levels = np.abs(2.0 * rows.answer.marginal_cdf(rows.y) - 1.0)
    names = target_names_of(normal.target_names, normal.event_size)
    pits = {
        name: levels[seen, j]
        for j, (name, seen) in enumerate(zip(names, rows.is_observed.T, strict=True))
    }
    _reliability(ax, pits, "nominal coverage of intervals", "observed coverage")


def pit_histogram(ax: Any, normal: Distribution, y: Any, *, bins: int = 20) -> None:
    """Plot a histogram of F(q), with q the squared Mahalanobis distance and F the χ²_d CDF.

    It is flat if the joint distribution is calibrated, high on the right if it is overconfident,
    and high on the left if it is underconfident. The gray band covers 90 % of the bars of a
    calibrated model (each bar separately).

    Args:
        ax: matplotlib axes.
        normal: distributions for the rows of y.
        y: (rows, d), observed values, NaN where missing: the marginal of the observed targets is
            used.
        bins: int, number of bars.

    """
    pit = _joint_pit(normal, y)
    n, share = len(pit), 1.0 / whole(bins, "bins", "the number of bars", 2)
    half_width = 1.645 * np.sqrt(share * (1.0 - share) / n) / share
    ax.axhspan(1.0 - half_width, 1.0 + half_width, color="0.9", linewidth=0)
    ax.hist(pit, bins=np.linspace(0.0, 1.0, bins + 1), density=True, color=COLORS[0], alpha=0.7)
    ax.axhline(1.0, color="0.4", linewidth=1)
    ax.set(xlim=(0, 1), xlabel="joint PIT, F(squared distance)", ylabel="density")


def chi_square_qq(ax: Any, predictions: Distribution | Mapping[str, Distribution], y: Any) -> None:
    """Plot quantiles of the squared Mahalanobis distances against those of χ²_d.

    A prediction is calibrated on the diagonal, and overconfident above it; an upward bend at the
    upper end indicates tails heavier than normal.

    Args:
        ax: matplotlib axes.
        predictions: distributions for the rows of y, or a mapping from name to distributions.
        y: (rows, d), observed values. Rows with NaN are dropped.

    """
    top, named = 0.0, _by_name(predictions)
    for color, (name, normal) in zip(itertools.cycle(COLORS), named.items(), strict=False):
        complete = calibration_rows(normal, y, "marginalize", "chi_square_qq").complete()
        squared = np.sort(complete.chi_squares)
        levels = (np.arange(len(squared)) + 0.5) / len(squared)
        expected = [chi_square_quantile(float(p), normal.event_size) for p in levels]
        ax.plot(expected, squared, ".", color=color, markersize=3, label=name)
        top = max(top, expected[-1])
    ax.plot([0.0, top], [0.0, top], color="0.5", linewidth=1)
    ax.set(xlabel="expected squared distance (χ²)", ylabel="observed squared distance")
    ax.legend(loc="upper left", frameon=False, fontsize=8)


def _by_name(predictions: Any) -> Mapping[str, Distribution]:
    if isinstance(predictions, Distribution):
        return {"predicted": predictions}
    if not isinstance(predictions, Mapping) or not predictions:
        raise ValueError(
            "predictions must be distributions or a mapping from names to them; received "
            f"{type(predictions).__name__} {predictions!r}."
        )
    return predictions


def _joint_pit(normal: Distribution, y: Any) -> Array:
    rows = matched_rows(normal, y, "marginalize", "the joint PIT", every_target=False)
    return rows.answer.region_level(rows.with_gaps, "marginalize")[rows.count > 0]


def _reliability(ax: Any, pits: Mapping[str, Array], xlabel: str, ylabel: str) -> None:
    """Plot the fraction of values below each level, one curve per set, and a 90 % band."""
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


def pairs_by_correlation(normal: Distribution) -> list[tuple[int, int]]:
    """Return all pairs of targets, the most strongly correlated (on average) first."""
    correlation = _mean_correlation(normal)
    rows, columns = np.triu_indices(normal.event_size, 1)
    order = np.argsort(-np.abs(correlation[rows, columns]))
    return [(int(rows[i]), int(columns[i])) for i in order]


def _mean_correlation(normal: Distribution) -> Array:
    """Return the mean correlation matrix over all batch axes, (d, d)."""
    d = normal.event_size
    return normal.correlation.reshape(-1, d, d).mean(axis=0)
