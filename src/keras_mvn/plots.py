"""Pictures of predicted distributions. Matplotlib; every function draws on axes passed in.

Install with `pip install "keras-mvn[plots]"`. Colours are Okabe and Ito's, told apart by people
with colour-blindness.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mvn._checks import observations
from keras_mvn._chi_square import chi_square_cdf, chi_square_quantile
from keras_mvn._names import target_names_of
from keras_mvn.distribution import MultivariateNormal
from keras_mvn.types import Array

__all__ = ["COLORS", "correlation_heatmap", "ellipses", "joint_calibration", "pairs_by_correlation"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's palette, strongest first."""


def ellipses(
    ax: Any,
    normal: MultivariateNormal,
    pair: tuple[int, int],
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
        pair: indices of the targets on the x and y axes.
        y: (rows, d), what was observed; drawn as points in the colour of their ellipse, joined to
            its centre.
        level: probability of an ellipse.
        rows: how many rows to draw.

    Raises:
        ValueError: one target twice, or not one batch axis.

    """
    i, j = pair
    if i == j or len(normal.batch_shape) != 1:
        raise ValueError(
            f"ellipses needs two different targets and a batch of distributions; received "
            f"pair={pair} and batch shape {normal.batch_shape}."
        )
    angle = np.linspace(0.0, 2.0 * np.pi, 181)
    circle = np.sqrt(chi_square_quantile(level, 2)) * np.stack([np.cos(angle), np.sin(angle)])
    observed = None if y is None else np.asarray(y, dtype=np.float64)
    for row in range(min(rows, len(normal))):
        one, color = normal[row], COLORS[row % len(COLORS)]
        marginal = one.covariance[np.ix_(pair, pair)]
        outline = one.mean[list(pair), None] + np.linalg.cholesky(marginal) @ circle
        ax.plot(*outline, color=color, linewidth=1.2)
        if observed is not None:
            (mx, my), (ox, oy) = one.mean[list(pair)], observed[row, list(pair)]
            ax.plot([mx, ox], [my, oy], color=color, linewidth=0.8, alpha=0.6)
            ax.plot(ox, oy, "o", color=color, markersize=5)
    names = target_names_of(normal.target_names, normal.event_size)
    ax.set_xlabel(names[i])
    ax.set_ylabel(names[j])


def correlation_heatmap(ax: Any, normal: MultivariateNormal) -> None:
    """The mean predicted correlation matrix of a batch, from −1 (blue) to 1 (red), with figures."""
    correlation = _mean_correlation(normal)
    names = target_names_of(normal.target_names, normal.event_size)
    ax.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    for i, row in enumerate(correlation):
        for j, value in enumerate(row):
            color = "white" if abs(value) > 0.6 else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)


def joint_calibration(ax: Any, predictions: Mapping[str, MultivariateNormal], y: Any) -> None:
    """Observed against promised coverage of the joint ellipsoids, one curve per prediction.

    On the diagonal a prediction is calibrated; below it, overconfident. The grey band holds 90 %
    of the curves that a calibrated model would give with this many rows (pointwise).

    Args:
        ax: matplotlib axes.
        predictions: name → distributions for the rows of y.
        y: (rows, d), what was observed.

    """
    levels = np.linspace(0.0, 1.0, 101)
    observed = {name: observations(y, normal.mean) for name, normal in predictions.items()}
    n = len(y)
    half_width = 1.645 * np.sqrt(levels * (1.0 - levels) / n)
    ax.fill_between(levels, levels - half_width, levels + half_width, color="0.9", linewidth=0)
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=1)
    for color, (name, normal) in zip(itertools.cycle(COLORS), predictions.items(), strict=False):
        squared = normal.mahalanobis(observed[name]) ** 2
        pit = np.sort([chi_square_cdf(q, normal.event_size) for q in squared])
        ax.plot(levels, np.searchsorted(pit, levels, side="right") / n, color=color, label=name)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="promised coverage", ylabel="observed coverage")
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
