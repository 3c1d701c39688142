"""The energy score: a CRPS of several targets jointly, exact by a one-dimensional integral."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mvn._core.norm_quadrature import NODES
from keras_mvn._core.types import Array
from keras_mvn.distributions._parts import Part
from keras_mvn.distributions._radial_law import RadialLaw
from keras_mvn.distributions.base import Distribution
from keras_mvn.ops._mean_norm import mean_norm, scaled_nodes
from keras_mvn.scores._expectations import DRAWS, MOST_PARTS, averaged
from keras_mvn.scores._observations import Observations, target_units

__all__ = ["energy_of", "energy_score"]

MANY = 10
"""Targets per factor above which r × r algebra at each node is cheaper than eigenvalues of Σ."""

SCALES = 16
"""Nodes of the variable that scales a part with tails, for the distance of two parts."""


def energy_score(
    answer: Distribution,
    y: Any,
    target_scale: Any = 1.0,
    missing: str = "raise",
) -> Array:
    """Return E ‖X − y‖ − ½ E ‖X − X'‖, with X and X' independent draws: (...).

    Strictly proper. It grows linearly with an error where the log score grows with its square, so
    outliers do not dominate it; it takes correlations into account, but less sharply. For d = 1,
    it is the CRPS.

    For X ~ N(μ, Σ), with the Laplace transform φ(t) = E exp(−t ‖X − y‖²) = exp(−t mᵀ A⁻¹ m)/√det A,
    A = I + 2tΣ, m = y − μ, it is (1/(2√π)) ∫₀^∞ (1 − φ(t)) t^(−3/2) dt, minus 1/√2 times the same
    for m = 0.
    It is evaluated at 64 nodes, with relative errors, measured up to d = 2000, below 1e-9, and
    below 1e-6 where y is thousands of standard deviations away. It takes O(64 d r²) per row for a
    structure with few factors, without any d × d matrix; O(d³) otherwise. A Student's t is averaged
    over the variable that scales its normal, a mixture over its components and their pairs; of more
    than 8 components, the second term is estimated by 1000 draws, as both terms are for targets
    with a transform.

    Args:
        answer: predicted distributions with batch shape (...).
        y: (..., d), observed values in the units of y; batch axes broadcast against those of the
            predictions.
        target_scale: a number or (d,), by which targets are divided before distances are computed.
            1.0 measures distances in the units of y, which adds targets of different units as they
            are; for such targets, pass their standard deviations in the training data.
        missing: "marginalize" treats NaN in y as missing: the score is that of the marginal
            distribution of the observed targets, 0 if there are none. By default NaN is an error.

    Raises:
        ValueError: shapes do not fit, values are not finite, or target_scale is not positive.

    Source: Gneiting & Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA
    102 (2007); the integral: von Bahr & Esseen, Annals of Mathematical Statistics 36 (1965).

    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal([0.0], covariance=[[1.0]])
    >>> energy_score(normal, [0.0]).round(4)  # (√2 − 1)/√π
    np.float64(0.2337)

    """
    rows = Observations.read(answer, y, missing)
    return energy_of(rows.in_units(target_units(target_scale, rows.event_size)))


def energy_of(rows: Observations) -> Array:
    """Return the score in the units of these observations."""
    d, parts = rows.event_size, rows.answer.parts()
    if parts is None:
        return rows.score(_by_draws, DRAWS * d)
    if len(parts) > 1:
        drawn = DRAWS * d if len(parts) > MOST_PARTS else 0
        return rows.score(_of_mixture, NODES * d + d * d + drawn)
    loadings = parts[0].gaussian.loadings()
    if loadings is None or d <= MANY * loadings.shape[-1]:
        return rows.score(_by_eigenvalues, NODES * d + d * d)
    r = loadings.shape[-1]
    return rows.score(_by_factors, NODES * (d + r * r) + d * r * r)


def _by_eigenvalues(rows: Observations) -> Array:
    """Use Σ = U Λ Uᵀ, b = Uᵀ m: log φ = −Σⱼ (½ log(1 + 2tλⱼ) + t bⱼ²/(1 + 2tλⱼ))."""
    near, spread = _of_part(rows, rows.part)
    return near - 0.5 * spread


def _of_mixture(rows: Observations) -> Array:
    """Use E ‖X − y‖ = Σ w E ‖X_m − y‖, and the distances of all pairs of parts."""
    parts = rows.answer.parts() or ()
    weights = [np.exp(part.log_weight) for part in parts]
    near, spread = np.zeros(len(rows)), np.zeros(len(rows))
    if len(parts) > MOST_PARTS:
        for w, part in zip(weights, parts, strict=True):
            near += w * _of_part(rows, part)[0]
        return np.asarray(near - 0.5 * _drawn_spread(rows, rows.answer.sample(DRAWS, 0)))
    for i, (w, part) in enumerate(zip(weights, parts, strict=True)):
        to_y, own = _of_part(rows, part)
        near += w * to_y
        spread += w**2 * own
        for v, other in zip(weights[:i], parts[:i], strict=True):
            spread += 2.0 * w * v * _spread(rows, part, other)
    return near - 0.5 * spread


def _of_part(rows: Observations, part: Part) -> tuple[Array, Array]:
    """Return E ‖X − y‖ and E ‖X − X'‖, which needs nodes of its own: a distant y spreads them."""
    eigenvalues, vectors = _eigen(rows, part.gaussian.covariance())
    b = _along(rows.of_observed(rows.y - part.gaussian.mean), vectors)
    t, weights = scaled_nodes((eigenvalues + b**2).sum(axis=-1, keepdims=True))
    growth = 2.0 * t[..., None] * eigenvalues[:, None, :]
    distance = t * ((b * b)[:, None, :] / (1.0 + growth)).sum(axis=-1)
    near = _mean_length(part.law, weights, 0.5 * np.log1p(growth).sum(axis=-1), distance)
    return near, part.law.spread_factor() * mean_norm(eigenvalues, np.zeros_like(b))


def _mean_length(law: RadialLaw, weights: Array, determinant: Array, distance: Array) -> Array:
    """Return E ‖X‖ from A and B at the nodes (n, nodes), as in `RadialLaw.log_laplace`."""
    log_phi = law.log_laplace(determinant, distance, 1.0)
    return np.asarray(law.power_factor(1.0) * (weights * -np.expm1(log_phi)).sum(axis=-1))


def _spread(rows: Observations, part: Part, other: Part) -> Array:
    """Return E ‖X − X'‖ for independent draws from two parts."""
    one, two = part.gaussian.covariance(), other.gaussian.covariance()
    gap = rows.of_observed(part.gaussian.mean - other.gaussian.mean)

    def distance(v: Array, u: Array) -> Array:
        eigenvalues, vectors = _eigen(rows, v[..., None] * one + u[..., None] * two)
        return mean_norm(eigenvalues, _along(gap, vectors))

    inner = other.law.nodes(count=SCALES)
    return averaged(
        part.law.nodes(count=SCALES), lambda v: averaged(inner, lambda u: distance(v, u))
    )


def _eigen(rows: Observations, sigma: Array) -> tuple[Array, Array]:
    if rows.observed is not None:  # the marginal: missing targets do not vary
        sigma = sigma * rows.observed[:, :, None] * rows.observed[:, None, :]
    eigenvalues, vectors = np.linalg.eigh(sigma)
    return np.maximum(eigenvalues, 0.0), vectors


def _along(residual: Array, vectors: Array) -> Array:
    return (residual[:, None, :] @ vectors)[:, 0, :]


def _by_draws(rows: Observations) -> Array:
    """Estimate both distances by draws, for distributions that aren't mixtures of normals."""
    draws = rows.answer.sample(DRAWS, 0)
    near = _mean_norm_of(rows, draws - rows.y)
    return np.asarray(near - 0.5 * _drawn_spread(rows, draws))


def _drawn_spread(rows: Observations, draws: Array) -> Array:
    """Estimate E ‖X − X'‖ by the distances of draws from the ones before them."""
    return _mean_norm_of(rows, draws - np.roll(draws, 1, axis=0))


def _mean_norm_of(rows: Observations, gap: Array) -> Array:
    return np.asarray(np.linalg.norm(rows.of_observed(gap), axis=-1).mean(axis=0))


def _by_factors(rows: Observations) -> Array:
    """Use Σ = S² + W Wᵀ: I + 2tΣ = D + B Bᵀ.

    D = I + 2tS² and B = √(2t) W, |D + B Bᵀ| = |D| |I + Bᵀ D⁻¹ B|, and mᵀ (D + B Bᵀ)⁻¹ m is the
    minimum over f of ‖m − B f‖²_D + ‖f‖²: a sum of squares, where Woodbury's formula is a
    difference.
    """
    g = rows.gaussian
    m = rows.of_observed(rows.y - g.mean)
    s = rows.of_observed(g.scale)
    w = s[..., None] * np.asarray(g.loadings())
    variance = rows.of_observed(g.variance())
    t, weights = scaled_nodes((variance + m**2).sum(axis=-1, keepdims=True))
    growth = 2.0 * t[:, :, None] * (s**2)[:, None, :]
    half_log_det = 0.5 * np.log1p(growth).sum(axis=-1)
    inverse = 1.0 / (1.0 + growth)  # (n, nodes, d)
    root = np.sqrt(2.0 * t)[..., None]
    n, d, r = w.shape
    pairs = (w[..., :, None] * w[..., None, :]).reshape(n, d, r * r)
    gram = (root**2 * (inverse @ pairs)).reshape(*t.shape, r, r)
    # Eigenvalues give log |I + Bᵀ D⁻¹ B| to full relative accuracy even where it is small.
    eigenvalues, vectors = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    half_log_det += 0.5 * np.log1p(eigenvalues).sum(axis=-1)
    along = root * (inverse @ (w * m[..., None]))
    f = (along[:, :, None, :] @ vectors)[:, :, 0, :] / (1.0 + eigenvalues)
    f = (vectors @ f[..., None])[..., 0]
    left = m[:, None, :] - root * (f @ np.swapaxes(w, -1, -2))
    distance = t * ((left**2 * inverse).sum(axis=-1) + (f**2).sum(axis=-1))
    # On the same nodes for m and for 0.
    near = _mean_length(rows.law, weights, half_log_det, distance)
    spread = (weights * -np.expm1(-half_log_det)).sum(axis=-1)
    return np.asarray(near - 0.5 * rows.law.spread_factor() * spread)
