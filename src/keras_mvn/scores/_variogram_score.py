"""The variogram score, which compares differences between targets, pair by pair, in closed form."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from keras_mvn._core.checks import finite
from keras_mvn._core.types import Array
from keras_mvn.covariances.packing import pack_strict_lower
from keras_mvn.distributions.base import Distribution
from keras_mvn.ops._pair_differences import (
    checked_power,
    difference_variances,
    mean_power,
    pair_differences,
)
from keras_mvn.scores._expectations import DRAWS, averaged
from keras_mvn.scores._observations import Observations, target_units

__all__ = ["variogram_of", "variogram_score"]

PAIRED = 20
"""Nodes of the average over the variable that scales a Student's t."""


def variogram_score(
    answer: Distribution,
    y: Any,
    p: float = 0.5,
    target_scale: Any = 1.0,
    weights: Any = None,
    missing: str = "raise",
) -> Array:
    """Return `Σ_{i<j} wᵢⱼ (|yᵢ − yⱼ|^p − E |Xᵢ − Xⱼ|^p)²`, X a draw: (...).

    Proper, and it penalizes wrong correlations more sharply than the energy score. It ignores
    errors that all targets have in common (a mean that is off by the same amount everywhere), so
    it is not strictly proper: report it together with another score.

    For X ~ N(μ, Σ), with m = μᵢ − μⱼ and s² = Σᵢᵢ + Σⱼⱼ − 2Σᵢⱼ, `E |Xᵢ − Xⱼ|^p` =
    s^p 2^(p/2) Γ((1 + p)/2)/√π · ₁F₁(−p/2; ½; −m²/2s²). Per row, it takes one hypergeometric
    function per pair, and O(d² r) for a structure with r factors, O(d³) otherwise. A Student's t is
    averaged over the variable that scales its normal, a mixture over its components; targets with a
    transform are estimated by 1000 draws.

    Args:
        answer: predicted distributions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        p: float, the power, in (0, 2]; 0.5 is the usual choice.
        target_scale: a number or (d,), by which targets are divided before differences are taken.
            1.0 takes differences in the units of y, which makes sense only if all targets have the
            same unit; otherwise, pass their standard deviations in the training data.
        weights: (d, d), symmetric and not negative, the weight of each pair, for example the
            inverse of a distance; None for 1. Each pair counts once: half of a sum over all i and
            j.
        missing: "marginalize" treats NaN in y as missing: only pairs of observed targets count.
            By default NaN is an error.

    Raises:
        ValueError: p is not in (0, 2], weights is not such a matrix, or as for `energy_score`.
        ImportError: SciPy is not installed.

    Source: Scheuerer & Hamill, "Variogram-based proper scoring rules for probabilistic forecasts
    of multivariate quantities", Monthly Weather Review 143 (2015); the moment: Winkelbauer,
    "Moments and absolute moments of the normal distribution", 2012.

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([0.0, 0.0], covariance=np.diag([0.36, 0.64]))
    >>> variogram_score(normal, [1.0, 1.0], p=1.0).round(4)  # (0 − √(2/π))²
    np.float64(0.6366)

    """
    p = checked_power(p)
    rows = Observations.read(answer, y, missing)
    units = target_units(target_scale, rows.event_size)
    return variogram_of(rows.in_units(units), p, _pair_weights(weights, rows.event_size))


def _pair_weights(weights: Any, event_size: int) -> Array | None:
    """Return the weights of pairs i > j, (d(d − 1)/2,), or None."""
    if weights is None:
        return None
    matrix = finite(weights, "weights")
    if matrix.shape != (event_size, event_size):
        raise ValueError(
            f"weights has shape {matrix.shape}; expected ({event_size}, {event_size})."
        )
    if (matrix < 0).any() or not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0.0):
        raise ValueError("weights must be symmetric and not negative.")
    return matrix[np.tril_indices(event_size, -1)]


def variogram_of(rows: Observations, p: float = 0.5, weights: Array | None = None) -> Array:
    """Return the score in the units of these observations."""

    def score(block: Observations) -> Array:
        squares = (np.abs(pair_differences(block.y)) ** p - _expected(block, p)) ** 2
        if block.observed is not None:
            both = block.observed[:, :, None] * block.observed[:, None, :]
            squares = squares * pack_strict_lower(both)
        return np.asarray((squares if weights is None else squares * weights).sum(axis=-1))

    d, parts = rows.event_size, rows.answer.parts()
    if parts is None:
        return rows.score(score, DRAWS * d * d)
    loadings = parts[0].gaussian.loadings()
    return rows.score(score, d * d * (2 + (d if loadings is None else loadings.shape[-1])))


def _expected(rows: Observations, p: float) -> Array:
    """Return E |Xᵢ − Xⱼ|^p of every pair: (n, d(d − 1)/2)."""
    parts = rows.answer.parts()
    if parts is None:
        return np.asarray(
            (np.abs(pair_differences(rows.answer.sample(DRAWS, 0))) ** p).mean(axis=0)
        )
    total: Any = 0.0
    for part in parts:
        g = part.gaussian
        variance = difference_variances(g.structure, g.scale, g.shape_params)
        gap, nodes = pair_differences(g.mean), part.law.nodes(power=p, count=PAIRED)
        power = functools.partial(_at_node, gap, variance, p)
        total = total + np.exp(part.log_weight)[..., None] * averaged(nodes, power)
    return np.asarray(total)


def _at_node(gap: Array, variance: Array, p: float, v: Array) -> Array:
    return np.asarray(mean_power(gap, v * variance, p))
