"""The prediction error of each target given all other targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.distributions._gaussian import Gaussian, lower_factor
from keras_mvn.distributions._parts import Part
from keras_mvn.distributions.base import Distribution
from keras_mvn.scores._observations import Observations

__all__ = ["conditional_error", "conditional_error_of"]


def conditional_error(answer: Distribution, y: Any, missing: str = "raise") -> Array:
    """Return `|yᵢ − E[yᵢ | all other yⱼ]|` for each target, in the units of y: (..., d).

    For elliptical distributions, with Λ = Σ⁻¹ and the residual r = y − μ, this is
    `|(Λ r)ᵢ / Λᵢᵢ|`: one product and one diagonal instead of d conditional distributions. A mixture
    weighs those of its components. It assesses the correlations: correct ones make it small, and
    for independent targets it is the absolute error. Its mean over the targets is the TAC ("task
    agnostic correlations") of the source. It does not depend on the size of Σ: c Σ scores the same,
    so report it together with calibration or a proper score.

    Args:
        answer: predicted distributions with batch shape (...).
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
    return conditional_error_of(Observations.read(answer, y, missing))


def conditional_error_of(rows: Observations) -> Array:
    """Return the conditional error on the user's batch axes, NaN where y is missing."""
    parts = rows.answer.parts()
    if parts is None:
        return rows.score(_one_by_one)
    loadings = parts[0].gaussian.loadings()
    d = rows.event_size
    return rows.score(_error, d * (1 + loadings.shape[-1]) if loadings is not None else 3 * d * d)


def _error(rows: Observations) -> Array:
    """Weigh the parts' conditional means by how probable each makes all other targets."""
    parts = rows.answer.parts() or ()
    found = [_of_part(rows, part) for part in parts]
    if len(parts) == 1:
        gap, _ = found[0]
    else:
        evidence = [p.log_weight[..., None] + e for p, (_, e) in zip(parts, found, strict=True)]
        log_weights = np.array(evidence) - np.logaddexp.reduce(evidence, axis=0)
        gap = (np.exp(log_weights) * np.array([gap for gap, _ in found])).sum(axis=0)
    return rows.of_observed(np.abs(gap), np.nan)


def _of_part(rows: Observations, part: Part) -> tuple[Array, Array]:
    """Return y − E[yᵢ | all other yⱼ], and the log-density of these others: (n, d) each.

    With q_i = q − gap²Λᵢᵢ the squared distance of the others, and log det of their scale matrix
    that of Σ plus log Λᵢᵢ.
    """
    loadings, u = part.gaussian.loadings(), rows.of_observed(rows.y - part.gaussian.mean)
    by = _by_whitening if loadings is None else _by_factors
    gap, precision = by(rows, part.gaussian, u / part.gaussian.scale)
    gap, precision = part.gaussian.scale * gap, precision / part.gaussian.scale**2
    z, half_log_det = part.gaussian.whiten(u, rows.observed)
    others = np.maximum((z**2).sum(axis=-1)[:, None] - gap**2 * precision, 0.0)
    density = part.law.log_density(others.T, rows.count - 1.0).T
    return gap, density - half_log_det[:, None] - 0.5 * np.log(precision)


def _by_whitening(rows: Observations, prior: Gaussian, u: Array) -> tuple[Array, Array]:
    """Compute gap and Λᵢᵢ, in units of the scales, from R⁻¹ = Kᵀ K."""
    g = prior if rows.observed is None else _separated(prior, rows.observed)
    u = u * prior.scale / g.scale
    k = np.asarray(g.structure.whitening_matrix(g.shape_params, g.event_size))
    along = (np.swapaxes(k, -1, -2) @ (k @ u[..., None]))[..., 0]
    precision, unit = (k**2).sum(axis=-2), g.scale / prior.scale
    return unit * along / precision, precision / unit**2


def _separated(g: Gaussian, observed: Array) -> Gaussian:
    """Return the distributions with missing targets made independent of all other targets."""
    rows = g.lower() * observed[..., None]
    apart = (1.0 - observed)[..., None] * np.eye(g.event_size)
    lower = lower_factor(np.concatenate([rows, apart], axis=-1))
    return Gaussian.of_lower(g.mean, g.scale[..., :, None] * lower)


def _by_factors(rows: Observations, g: Gaussian, u: Array) -> tuple[Array, Array]:
    """Compute the same from R⁻¹ = (I + V Vᵀ)⁻¹ = I − Q Qᵀ, with [V; I] = [Q; ·] T."""
    v, d = np.asarray(g.loadings()), rows.event_size
    if rows.observed is not None:
        v = v * rows.observed[..., None]
    identity = np.broadcast_to(np.eye(v.shape[-1]), (len(rows), v.shape[-1], v.shape[-1]))
    q = np.linalg.qr(np.concatenate([v, identity], axis=-2))[0][..., :d, :]
    common = (q @ (np.swapaxes(q, -1, -2) @ u[..., None]))[..., 0]
    precision = 1.0 - (q**2).sum(axis=-1)
    return (u - common) / precision, precision


def _one_by_one(rows: Observations) -> Array:
    """Condition on all other targets, one target after the other; only for complete rows."""
    found, complete = np.full(rows.y.shape, np.nan), rows.is_observed.all(axis=-1)
    answer, y = rows.answer[complete], rows.y[complete]
    for i in range(rows.event_size):
        others = {j: y[:, j] for j in range(rows.event_size) if j != i}
        left = answer.condition(others) if others else answer
        found[complete, i] = np.abs(y[:, i] - left.mean[:, 0])
    return found
