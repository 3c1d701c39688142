"""Many targets moved by a few common factors."""

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
"""Up to this many targets `adapt` reads their dense covariance; beyond, its leading directions."""


@final
@register
@dataclass(frozen=True)
class LowRank(Covariance):
    """Factor analysis: Σ = S (I + V Vᵀ) S, V of d × r; r common factors and noise of each target.

    `scale` are the standard deviations of the targets' own noise (the square roots of the
    "uniquenesses"), `shape_params` holds V row by row, the loadings in units of that noise. The
    network emits d + d r numbers beside the mean; V = raw / √r, so that the common variance at the
    start does not depend on r. The columns of V are determined up to a rotation.

    Whitening goes through the factors one after the other: with w_k = v_k whitened by those before
    it, c = 1 + ‖w_k‖² and R_k = R_{k−1} + v_k v_kᵀ, z ← z − w_k (w_kᵀ z) / (c + √c), and
    half_log_det = ½ Σ log c. The r × r matrix I + Vᵀ V is never formed, because a Cholesky
    factorization of it loses κ(R) of float32's accuracy; this loses √κ and cannot fail, so V needs
    no bound. O(d r²) time and O(d r) memory per row, for samples and incomplete rows too. r steps
    are written out into the graph: meant for r up to about 50.

    V = 0 is a saddle of the likelihood: its gradient is zero there. A head does not start at it:
    `adapt` gives V the factors of the data, and its kernel a little noise.

    Args:
        rank: r ≥ 1, the number of factors.

    Raises:
        ValueError: rank is not an integer ≥ 1.

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
        """d r: V row by row."""
        return event_size * self.rank

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """z = M_r … M_1 u, M_k = I − w_k w_kᵀ / (c_k + √c_k); half_log_det = ½ Σ log c_k."""
        xp = namespace(u)
        steps, z = self._steps(shape_params, u[..., None, :])
        half_log_det = xp.log(steps[0].root)
        for step in steps[1:]:
            half_log_det = half_log_det + xp.log(step.root)
        return z[..., 0, :], half_log_det[..., 0, 0]

    def whiten_rows(self, shape_params: Tensor, rows: Tensor) -> Tensor:
        """All of them with one pass through the factors: O(m d r)."""
        return self._steps(shape_params, rows)[1]

    def _steps(self, shape_params: Tensor, u: Tensor | None = None) -> tuple[list[_Step], Tensor]:
        """Every factor whitened by those before it, and the rows u (..., m, d) by all of them."""
        xp = namespace(shape_params)
        rows = xp.swapaxes(split_last_axis(shape_params, -1, self.rank), -1, -2)
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
        """Back through the factors, last to first; what `whiten` held is computed again.

        Everything on the way is a combination of w_1 … w_r, z and z_bar: only its r + 2
        coefficients are carried, and the inner products of these vectors serve for all.
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
        """What is missing drops out: its rows of V and of u are zero."""
        v = split_last_axis(shape_params, -1, self.rank) * observed[..., None]
        return self.whiten_with_vjp(merge_last_axes(v), u * observed)

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """u = M_1⁻¹ … M_r⁻¹ z, M_k⁻¹ = I + w_k w_kᵀ / (1 + √c_k)."""
        steps, _ = self._steps(shape_params)
        rows = z[..., None, :]
        for step in reversed(steps):
            rows = step.color(rows)
        return rows[..., 0, :]

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """R = I + V Vᵀ."""
        v = split_last_axis(shape_params, event_size, self.rank)
        return v @ namespace(v).swapaxes(v, -1, -2) + constant_like(np.eye(event_size), v)

    def variance(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """scale² (1 + Σ_k V_ik²)."""
        v = split_last_axis(shape_params, -1, self.rank)
        return scale * scale * (1.0 + namespace(v).sum(v * v, axis=-1))

    def loadings(self, shape_params: Tensor, event_size: int) -> Tensor:
        """V: (..., d, r)."""
        return split_last_axis(shape_params, event_size, self.rank)

    def constrain(self, raw: Tensor, event_size: int) -> tuple[Tensor, Tensor]:
        """The link for the scales, V = raw / √r."""
        return links.positive(raw[..., :event_size]), raw[..., event_size:] / self.rank**0.5

    def unconstrain(self, scale: Tensor, shape_params: Tensor) -> Tensor:
        """The inverse of `constrain`."""
        return namespace(scale).concatenate(
            [links.positive_inverse(scale), shape_params * self.rank**0.5], axis=-1
        )

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Maximum likelihood factor analysis: the closest in Kullback–Leibler divergence.

        Exact where Σ is of this form with uniquenesses of at least 1e-6 of the variance, their
        floor; a local minimum (seen in 1 of 500 small Σ with weak factors) is next to it. O(d³) a
        step, of which there may be a hundred.

        Raises:
            ValueError: Σ is not positive definite.

        """
        return closest_factors(covariance, self.rank)

    def moments_rank(self, event_size: int) -> int | None:
        """The dense covariance up to d = 256; beyond, 2 r + 10 leading directions."""
        return None if event_size <= DENSE_LIMIT else 2 * self.rank + 10

    def from_moments(self, moments: Moments) -> tuple[Array, Array]:
        """`from_covariance`, or the leading r directions less their share of the noise, in O(d r²).

        The latter (probabilistic principal components of the correlation, with the variances kept
        target by target) tends to the former as d grows.
        """
        if moments.directions is None:
            return self.from_covariance(moments.dense())
        return leading_factors(moments.stddev, moments.directions, self.rank)


@dataclass(frozen=True)
class _Step:
    """One factor: M = I − w wᵀ / (c + √c), the symmetric (I + w wᵀ)^(−½), c = 1 + ‖w‖².

    Vectors are rows, (..., m, d): one or several are whitened at once.
    """

    w: Tensor
    """(..., 1, d)"""
    root: Tensor
    """√c, (..., 1, 1)"""
    products: Tensor
    """(..., m, 1): of w with the rows this step whitens."""

    @classmethod
    def of(cls, rows: Tensor) -> _Step:
        """The step whose factor is the first row, for the rows after it."""
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
        """From the rows after this step, and their gradients, to those before it, w the first.

        `w`, `rows` and `bars` as coefficients; `along` (..., m, 1), the products of w and `bars`.
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
    """The unit matrix, with the batch axes of `like`."""
    return namespace(like).zeros_like(like) + constant_like(np.eye(like.shape[-1]), like)
