"""The prediction error of each target given all other targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._gaussian import Gaussian, lower_factor
from keras_mvn.scores._observations import Observations

__all__ = ["conditional_error", "conditional_error_of"]


def conditional_error(normal: MultivariateNormal, y: Any, missing: str = "raise") -> Array:
    """Return `|yᵢ − E[yᵢ | all other yⱼ]|` for each target, in the units of y: (..., d).

    With the precision Λ = Σ⁻¹ and the residual r = y − μ, this is `|(Λ r)ᵢ / Λᵢᵢ|`: one product and
    one diagonal instead of d conditional distributions. It assesses the correlations: correct ones
    make it small, and for independent targets it is the absolute error. Its mean over the targets
    is the TAC ("task agnostic correlations") of the source. It does not depend on the size of Σ:
    c Σ scores the same, so report it together with calibration or a proper score.

    Args:
        normal: `MultivariateNormal`, predictions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        missing: "marginalize" treats NaN in y as missing: the result is NaN there, and each
            observed target is conditioned on the other observed targets. By default NaN is an
            error.

    Raises:
        ValueError: the last axis is not d, batch axes do not fit, or values are not finite.

    Source: Shukla, Salzmann & Alahi, "TIC-TAC: A framework for improved covariance estimation in
    deep heteroscedastic regression", ICML 2024.

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([1.0, 2.0], covariance=[[4.0, 3.0], [3.0, 9.0]])
    >>> conditional_error(normal, [3.0, 4.0]).round(4)  # 3 − (1 + ⅓ · 2), 4 − (2 + ¾ · 2)
    array([1.3333, 0.5   ])

    """
    return conditional_error_of(Observations.read(normal, y, missing))


def conditional_error_of(rows: Observations) -> Array:
    """Return the conditional error on the user's batch axes, NaN where y is missing."""
    loadings = rows.gaussian.loadings()
    if loadings is None:
        return rows.score(_by_whitening, 3 * rows.event_size**2)
    return rows.score(_by_factors, rows.event_size * (1 + loadings.shape[-1]))


def _by_whitening(rows: Observations) -> Array:
    """Compute the error from R⁻¹ = Kᵀ K."""
    g = rows.gaussian if rows.observed is None else _separated(rows.gaussian, rows.observed)
    u = rows.residual / g.scale
    k = np.asarray(g.structure.whitening_matrix(g.shape_params, g.event_size))
    z = k @ u[..., None]
    along = (np.swapaxes(k, -1, -2) @ z)[..., 0]
    return rows.of_observed(g.scale * np.abs(along) / (k**2).sum(axis=-2), np.nan)


def _separated(g: Gaussian, observed: Array) -> Gaussian:
    """Return the distributions with missing targets made independent of all other targets."""
    rows = g.lower() * observed[..., None]
    apart = (1.0 - observed)[..., None] * np.eye(g.event_size)
    lower = lower_factor(np.concatenate([rows, apart], axis=-1))
    return Gaussian.of_lower(g.mean, g.scale[..., :, None] * lower)


def _by_factors(rows: Observations) -> Array:
    """Compute the error from R⁻¹ = (I + V Vᵀ)⁻¹ = I − Q Qᵀ, with [V; I] = [Q; ·] T."""
    g, d = rows.gaussian, rows.event_size
    v = np.asarray(g.loadings())
    if rows.observed is not None:
        v = v * rows.observed[..., None]
    identity = np.broadcast_to(np.eye(v.shape[-1]), (len(rows), v.shape[-1], v.shape[-1]))
    q = np.linalg.qr(np.concatenate([v, identity], axis=-2))[0][..., :d, :]
    u = rows.residual / g.scale
    common = (q @ (np.swapaxes(q, -1, -2) @ u[..., None]))[..., 0]
    left = np.abs(u - common) / (1.0 - (q**2).sum(axis=-1))
    return rows.of_observed(g.scale * left, np.nan)
