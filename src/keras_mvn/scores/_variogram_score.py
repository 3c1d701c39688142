"""The variogram score: how far targets lie apart, pair by pair, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.checks import finite
from keras_mvn._core.types import Array
from keras_mvn.covariances.packing import pack_strict_lower
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.ops._pair_differences import (
    checked_power,
    difference_variances,
    mean_power,
    pair_differences,
)
from keras_mvn.scores._observations import Observations, target_units

__all__ = ["variogram_of", "variogram_score"]


def variogram_score(
    normal: MultivariateNormal,
    y: Any,
    p: float = 0.5,
    target_scale: Any = 1.0,
    weights: Any = None,
    missing: str = "raise",
) -> Array:
    """`Σ_{i<j} wᵢⱼ (|yᵢ − yⱼ|^p − E |Xᵢ − Xⱼ|^p)²`, X ~ N(μ, Σ): (...).

    Proper, and sharper on wrong correlations than the energy score. It does not see what all
    targets have in common (a mean that is off by the same amount everywhere), so it is not
    strictly proper: report it beside another.

    With m = μᵢ − μⱼ and s² = Σᵢᵢ + Σⱼⱼ − 2Σᵢⱼ, `E |Xᵢ − Xⱼ|^p` = s^p 2^(p/2) Γ((1 + p)/2)/√π ·
    ₁F₁(−p/2; ½; −m²/2s²). One hypergeometric function per pair, and O(d² r) for a structure of r
    factors, O(d³) otherwise, per row.

    Args:
        normal: the predictions, of batch shape (...).
        y: (..., d), in the units of y; batch axes broadcast against those of the predictions.
        p: the power, in (0, 2]; 0.5 is usual.
        target_scale: a number or (d,); differences are between targets divided by it. 1.0 takes
            them in the units of y, which only targets of one unit have in common: take their
            standard deviations in the training data.
        weights: (d, d), symmetric, not negative: what each pair counts, such as the inverse of a
            distance; None: 1. Each pair counts once: half of a sum over all i and j.
        missing: "marginalize" reads NaN as "not observed": only pairs of observed targets count.
            By default NaN is an error.

    Raises:
        ValueError: p is not in (0, 2], weights that are not such a matrix; as `energy_score`.
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
    rows = Observations.read(normal, y, missing)
    units = target_units(target_scale, rows.event_size)
    return variogram_of(rows.in_units(units), p, _pair_weights(weights, rows.event_size))


def _pair_weights(weights: Any, event_size: int) -> Array | None:
    """The weights of pairs i > j, (d(d − 1)/2,), or None."""
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
    """The score in the units that these observations have."""

    def score(block: Observations) -> Array:
        g = block.gaussian
        variance = difference_variances(g.structure, g.scale, g.shape_params)
        expected = mean_power(pair_differences(g.mean), variance, p)
        squares = (np.abs(pair_differences(block.y)) ** p - expected) ** 2
        if block.observed is not None:
            both = block.observed[:, :, None] * block.observed[:, None, :]
            squares = squares * pack_strict_lower(both)
        return np.asarray((squares if weights is None else squares * weights).sum(axis=-1))

    d = rows.event_size
    loadings = rows.gaussian.loadings()
    return rows.score(score, d * d * (2 + (d if loadings is None else loadings.shape[-1])))
