"""Divergences and distances between two normal distributions, computed from their factors."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.numeric import merge_last_axes
from keras_mvn._core.types import Array
from keras_mvn.covariances import Diagonal, LowRank
from keras_mvn.distributions._gaussian import Gaussian, lower_factor
from keras_mvn.layouts import Parameters
from keras_mvn.ops._kl_divergence import kl_divergence

__all__ = ["bhattacharyya", "kullback_leibler", "wasserstein2"]


def kullback_leibler(p: Gaussian, q: Gaussian) -> Array:
    """The Kullback–Leibler divergence E log(p/q) under p."""
    value: Array = kl_divergence(p.structure, _parameters(p), q.structure, _parameters(q))
    return value[()]


def _parameters(normal: Gaussian) -> Parameters:
    return Parameters(normal.mean, normal.scale, normal.shape_params)


def wasserstein2(p: Gaussian, q: Gaussian) -> Array:
    """The 2-Wasserstein distance √(‖μ_p − μ_q‖² + min over orthogonal U of ‖L_p − L_q U‖²).

    The minimum (Procrustes) equals the trace formula, but avoids the difference of large traces.
    """
    a, b = p.scale_tril(), q.scale_tril()
    left, _, right = np.linalg.svd(np.swapaxes(b, -1, -2) @ a)
    moved = a - b @ (left @ right)
    return np.sqrt(((p.mean - q.mean) ** 2).sum(axis=-1) + (moved**2).sum(axis=(-2, -1)))


def bhattacharyya(p: Gaussian, q: Gaussian) -> Array:
    """The Bhattacharyya distance, with Σ̄ = ½ (Σ_p + Σ_q).

    ⅛ ‖K̄ (μ_p − μ_q)‖² + ½ log |Σ̄| − ¼ log |Σ_p| − ¼ log |Σ_q|.
    """
    z, half_log_det = _average(p, q).whiten(p.mean - q.mean)
    spread = half_log_det - 0.5 * (p.half_log_det() + q.half_log_det())
    return 0.125 * (z**2).sum(axis=-1) + spread


def _average(p: Gaussian, q: Gaussian) -> Gaussian:
    """Return N(0, ½ (Σ_p + Σ_q)), with r_p + r_q loadings if both have loadings."""
    zero = np.zeros(p.mean.shape)
    loadings = p.loadings(), q.loadings()
    half = np.sqrt(0.5)
    if loadings[0] is None or loadings[1] is None:
        stacked = np.concatenate([p.scale_tril(), q.scale_tril()], axis=-1)
        size = np.linalg.norm(stacked, axis=-1, keepdims=True)
        return Gaussian.of_lower(zero, half * size * lower_factor(stacked / size))
    scale = half * np.hypot(p.scale, q.scale)
    columns = [
        (half * g.scale / scale)[..., None] * v for g, v in zip((p, q), loadings, strict=True)
    ]
    both = np.concatenate(columns, axis=-1)
    rank = both.shape[-1]
    structure = LowRank(rank) if rank else Diagonal()
    return Gaussian(structure, zero, scale, np.asarray(merge_last_axes(both)))
