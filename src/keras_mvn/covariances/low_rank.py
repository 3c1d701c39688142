"""Low-rank-plus-diagonal covariance (factor analysis): many targets, a few common factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.numeric import constant_like, merge_last_axes, namespace, split_last_axis
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import links
from keras_mvn.covariances._factor_analysis import closest_factors, leading_factors
from keras_mvn.covariances.base import Covariance, register
from keras_mvn.covariances.moments import Moments

__all__ = ["LowRank"]

DENSE_LIMIT = 256
"""Up to this d, `adapt` measures the dense covariance; beyond, only its leading directions."""


@final
@register
@dataclass(frozen=True)
class LowRank(Covariance):
    """Factor analysis: Σ = S (I + V Vᵀ) S, V of d × r: r common factors plus noise per target.

    `scale` holds the standard deviations of the targets' own noise (the square roots of the
    "uniquenesses"); `shape_params` holds V row by row, the loadings in units of that noise. The
    network emits d + d r numbers besides the mean; V = raw / √r, so that the initial common
    variance does not depend on r. The columns of V are determined only up to a rotation.

    Whitening processes one factor at a time: with w_k = v_k whitened by the factors before it,
    c = 1 + ‖w_k‖² and R_k = R_{k−1} + v_k v_kᵀ, z ← z − w_k (w_kᵀ z) / (c + √c), and
    half_log_det = ½ Σ log c. The r × r matrix I + Vᵀ V is never formed, because its Cholesky
    factorization loses κ(R) of float32's accuracy; this method loses √κ and cannot fail, so V needs
    no bound. O(d r²) time and O(d r) memory per row, also for samples and incomplete rows. The r
    steps are unrolled in the graph, so the structure is meant for r up to about 50.

    V = 0 is a saddle point of the likelihood, with zero gradient. A head does not start there:
    `adapt` sets V to the factors of the data, and the head's initial kernel adds a little noise.

    Args:
        rank: int r ≥ 1, number of common factors.

    Raises:
        ValueError: `rank` is not an integer ≥ 1.

    Source: Lawley & Maxwell, "Factor analysis as a statistical method", 1971.

    >>> import numpy as np
    >>> loadings = np.array([[1.0], [2.0], [0.5], [1.0]])
    >>> structure = LowRank(rank=1)
    >>> scale, v = structure.from_covariance(np.diag([1.0, 4, 9, 1]) + loadings @ loadings.T)
    >>> scale.round(4), np.abs(v).round(4)
    (array([1., 2., 3., 1.]), array([1.    , 1.    , 0.1667, 1.    ]))

    """

    fused_form: ClassVar[str | None] = "low_rank"

    rank: int

    def __post_init__(self) -> None:
        whole(self.rank, "rank", "the number of common factors", 1)

    def shape_size(self, event_size: int) -> int:
        """Return d r, the size of V."""
        return event_size * self.rank

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = M_r … M_1 u and half_log_det = ½ Σ log c_k.

        M_k = I − w_k w_kᵀ / (c_k + √c_k).
        """
        xp = namespace(u)
        steps, z = self._steps(shape_params, u[..., None, :])
        half_log_det = xp.log(steps[0].root)
        for step in steps[1:]:
            half_log_det = half_log_det + xp.log(step.root)
        return z[..., 0, :], half_log_det[..., 0, 0]

    def whiten_rows(self, shape_params: Tensor, rows: Tensor) -> Tensor:
        """Whiten all m rows in one pass through the factors: O(m d r)."""
        return self._steps(shape_params, rows)[1]

    def _steps(self, shape_params: Tensor, u: Tensor | None = None) -> tuple[list[_Step], Tensor]:
        """Whiten each factor by those before it, and the rows u (..., m, d) by all factors."""
        xp = namespace(shape_params)
        d = shape_params.shape[-1] // self.rank
        rows = xp.swapaxes(split_last_axis(shape_params, d, self.rank), -1, -2)
        if u is not None:
            rows = xp.concatenate([rows, u], axis=-2)
        steps = []
        for _ in range(self.rank):
            step = _Step.of(rows)
            rows = step.whiten(rows[..., 1:, :])
            steps.append(step)
        return steps, rows

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Go back through the factors, last to first, recomputing the intermediates of `whiten`.

        All intermediates are linear combinations of w_1 … w_r, z and z_bar: only their r + 2
        coefficients are carried along, and the inner products of these vectors suffice for all.
        """
        xp = namespace(u)
        steps, _ = self._steps(shape_params, u[..., None, :])
        basis = xp.concatenate(
            [*(step.w for step in steps), z[..., None, :], z_bar[..., None, :]], axis=-2
        )
        gram = basis @ xp.swapaxes(basis, -1, -2)
        unit = _identity(gram)
        rows, bars = unit[..., -2:-1, :], unit[..., -1:, :]
        for k in reversed(range(self.rank)):
            w, along = unit[..., k : k + 1, :], bars @ gram[..., :, k : k + 1]
            rows, bars = steps[k].backward(w, rows, bars, along, half_log_det_bar[..., None, None])
        bars = bars @ basis
        v_bar = xp.swapaxes(bars[..., :-1, :], -1, -2)
        return merge_last_axes(v_bar), bars[..., -1, :]

    def whiten_observed(
        self, shape_params: Tensor, u: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Whiten the observed targets: the rows of V and u of missing targets are set to zero."""
        v = (
            split_last_axis(shape_params, shape_params.shape[-1] // self.rank, self.rank)
            * observed[..., None]
        )
        return self.whiten_with_vjp(merge_last_axes(v), u * observed)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Return u = M_1⁻¹ … M_r⁻¹ z, M_k⁻¹ = I + w_k w_kᵀ / (1 + √c_k)."""
        steps, _ = self._steps(shape_params)
        rows = z[..., None, :]
        for step in reversed(steps):
            rows = step.color(rows)
        return rows[..., 0, :]

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R = I + V Vᵀ."""
        v = split_last_axis(shape_params, event_size, self.rank)
        return v @ namespace(v).swapaxes(v, -1, -2) + constant_like(np.eye(event_size), v)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Return scale² (1 + Σ_k V_ik²)."""
        v = split_last_axis(shape_params, shape_params.shape[-1] // self.rank, self.rank)
        return scale * scale * (1.0 + namespace(v).sum(v * v, axis=-1))

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return V (..., d, r)."""
        return split_last_axis(shape_params, event_size, self.rank)

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """Apply the link to the scales; V = raw / √r."""
        return links.positive(raw[..., :event_size]), raw[..., event_size:] / self.rank**0.5

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """Invert `constrain`."""
        return namespace(scale).concatenate(
            [links.positive_inverse(scale), shape_params * self.rank**0.5], axis=-1
        )

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Fit by maximum likelihood factor analysis: the closest in Kullback–Leibler divergence.

        Exact if Σ is of this form with uniquenesses of at least 1e-6 of the variance, their floor;
        a local minimum (seen for 1 of 500 small Σ with weak factors) is close to it. O(d³) per
        step, and there may be a hundred steps.

        Raises:
            ValueError: Σ is not positive definite.

        """
        return closest_factors(covariance, self.rank)

    def moments_rank(self, event_size: int) -> int | None:
        """Return None up to d = 256, for the dense covariance; beyond, 2 r + 10 directions."""
        return None if event_size <= DENSE_LIMIT else 2 * self.rank + 10

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """Fit the dense covariance, or the r leading directions less their share of the noise.

        The latter takes O(d r²). It is probabilistic PCA of the correlation matrix, with the
        variance of each target preserved, and converges to the former as d grows.
        """
        if moments.directions is None:
            return self.from_covariance(moments.dense())
        return leading_factors(moments.stddev, moments.directions, self.rank)


@dataclass(frozen=True)
class _Step:
    """The whitening step of one factor: M = I − w wᵀ/(c + √c) = (I + w wᵀ)^(−½), c = 1 + ‖w‖².

    M is symmetric. Vectors are rows, (..., m, d); several can be whitened at once.
    """

    w: Tensor
    """(..., 1, d)"""
    root: Tensor
    """√c, (..., 1, 1)"""
    products: Tensor
    """(..., m, 1), the inner products of w with the rows that this step whitens."""

    @classmethod
    def of(cls, rows: Tensor) -> _Step:
        """Create the step whose factor is the first row, to whiten the rows after it."""
        xp, w = namespace(rows), rows[..., :1, :]
        products = rows @ xp.swapaxes(w, -1, -2)
        return cls(w, xp.sqrt(1.0 + products[..., :1, :]), products[..., 1:, :])

    def _weight(self) -> Tensor:
        return 1.0 / (self.root * (self.root + 1.0))

    def whiten(self, rows: Tensor) -> Tensor:
        return rows - (self._weight() * self.products) * self.w

    def color(self, rows: Tensor) -> Tensor:
        product = rows @ namespace(rows).swapaxes(self.w, -1, -2)
        return rows + product / (1.0 + self.root) * self.w

    def backward(
        self, w: Tensor, rows: Tensor, bars: Tensor, along: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map the rows after this step and their gradients to those before it, starting with w.

        `w`, `rows` and `bars` are coefficients; `along` (..., m, 1) holds the inner products of w
        with `bars`.
        """
        xp, weight = namespace(rows), self._weight()
        before = rows + weight * self.products * w
        products_bar = -weight * along
        # d weight / d c = −weight² (1 + ½ / √c)
        c_bar = weight * (1.0 + 0.5 / self.root) * xp.sum(
            along * (weight * self.products), axis=-2, keepdims=True
        ) + 0.5 * half_log_det_bar / (self.root * self.root)
        w_bar = (
            xp.swapaxes(products_bar, -1, -2) @ before
            - xp.swapaxes(weight * self.products, -1, -2) @ bars
            + 2.0 * c_bar * w
        )
        return (
            xp.concatenate([w, before], axis=-2),
            xp.concatenate([w_bar, bars + products_bar * w], axis=-2),
        )


def _identity(like: Tensor) -> Tensor:
    """Return the identity matrix with the batch axes of `like`."""
    return namespace(like).zeros_like(like) + constant_like(np.eye(like.shape[-1]), like)
