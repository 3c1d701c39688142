"""The algebra of normal distributions on arrays: marginals, linear functions, conditioning.

A `Gaussian` is N(μ, Σ), Σ = S R S, without names or checks; `MultivariateNormal` adds these and
calls this module. All computations use factors F with R = F Fᵀ, which a QR factorization makes
triangular: Σ is never formed, inverted or factored, so that only √κ of float64's accuracy is lost
where a covariance would lose κ. Scales are kept separate, so that units cost no accuracy.

Structures of the form R = I + V Vᵀ (`Covariance.loadings`) keep this form, and nothing of size
d × d is formed for them: given the factors, their targets are independent.

Source: the joint triangular factor is the "array algorithm" of Kailath, Sayed & Hassibi, "Linear
estimation", 2000, ch. 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.numeric import merge_last_axes, solve_lower
from keras_mvn._core.types import Array
from keras_mvn.covariances import Cholesky, Covariance

__all__ = ["Gaussian", "lower_factor"]


def lower_factor(factor: Array) -> Array:
    """Return the lower L with L Lᵀ = F Fᵀ and diagonal ≥ 0: (..., m, p) → (..., m, m), p ≥ m."""
    r = np.linalg.qr(np.swapaxes(factor, -1, -2), mode="r")
    diagonal = np.diagonal(r, axis1=-2, axis2=-1)
    return np.swapaxes(r * np.where(diagonal < 0, -1.0, 1.0)[..., :, None], -1, -2)


def _times(matrix: Array, x: Array) -> Array:
    return (matrix @ x[..., None])[..., 0]


def _transpose(matrix: Array) -> Array:
    return np.swapaxes(matrix, -1, -2)


@final
@dataclass(frozen=True)
class Gaussian:
    """A batch of N(μ, S R S): mean and scale (..., d), shape_params (..., k), equal batch axes."""

    structure: Covariance
    mean: Array
    scale: Array
    shape_params: Array

    @classmethod
    def of_lower(cls, mean: Array, lower: Array) -> Gaussian:
        """Create a batch from the Cholesky factor of Σ."""
        return cls(Cholesky(), mean, *Cholesky().from_matrix(lower))

    @classmethod
    def concatenate(cls, parts: Sequence[Gaussian]) -> Gaussian:
        """Join batches along the first axis, by Cholesky factors if their structures differ."""
        structure = parts[0].structure
        if any(part.structure != structure for part in parts):
            joined = [
                np.concatenate(a)
                for a in zip(*((p.mean, p.scale_tril()) for p in parts), strict=True)
            ]
            return cls.of_lower(*joined)
        arrays = zip(*((part.mean, part.scale, part.shape_params) for part in parts), strict=True)
        return cls(structure, *(np.concatenate(array) for array in arrays))

    @property
    def event_size(self) -> int:
        """The number of targets d."""
        return int(self.mean.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes."""
        return tuple(self.mean.shape[:-1])

    def on_batch(self, batch: tuple[int, ...]) -> Gaussian:
        """Broadcast to larger batch axes, as views."""
        mean, scale, shape_params = (
            np.broadcast_to(array, (*batch, array.shape[-1]))
            for array in (self.mean, self.scale, self.shape_params)
        )
        return Gaussian(self.structure, mean, scale, shape_params)

    def loadings(self) -> Array | None:
        """The loadings V with R = I + V Vᵀ, (..., d, r), or None."""
        return self.structure.loadings(self.shape_params, self.event_size)

    def factor(self) -> Array:
        """The structure's own factor F with R = F Fᵀ: (..., d, d)."""
        return np.asarray(self.structure.coloring_matrix(self.shape_params, self.event_size))

    def lower(self) -> Array:
        """The Cholesky factor of R."""
        factor = self.factor()
        return factor if self.structure.triangular else lower_factor(factor)

    def factor_rows(self, matrix: Array) -> Array:
        """The product A F, F Fᵀ = Σ: (..., m, d) → (..., m, p); p = d + r with loadings, else d."""
        scaled = matrix * self.scale[..., None, :]
        loadings = self.loadings()
        if loadings is None:
            return scaled @ self.factor()
        return np.concatenate([scaled, scaled @ loadings], axis=-1)

    def scale_tril(self) -> Array:
        """The Cholesky factor L of Σ = L Lᵀ."""
        return self.scale[..., None] * self.lower()

    def shape_matrix(self) -> Array:
        """The matrix R of Σ = S R S."""
        return np.asarray(self.structure.shape_matrix(self.shape_params, self.event_size))

    def covariance(self) -> Array:
        """The covariance Σ."""
        return np.asarray(self.structure.covariance(self.scale, self.shape_params))

    def variance(self) -> Array:
        """The diagonal of Σ."""
        return np.asarray(self.structure.variance(self.scale, self.shape_params))

    def errors(self, standard_normal: Callable[[int], Array]) -> Array:
        """Draw from N(0, Σ), in the units of y: (n, ..., d).

        Args:
            standard_normal: function from m to independent standard normal numbers (n, ..., m).

        """
        d, loadings = self.event_size, self.loadings()
        if loadings is None:
            z, factor = standard_normal(d), self.factor()
            # All draws from a distribution are columns of one product.
            return self.scale * np.moveaxis(factor @ np.moveaxis(z, 0, -1), -1, 0)
        z, r = standard_normal(d + loadings.shape[-1]), loadings.shape[-1]
        common = np.moveaxis(loadings @ np.moveaxis(z[..., d:], 0, -1), -1, 0) if r else 0.0
        return self.scale * (z[..., :d] + common)

    def whitening(self) -> Array:
        """The matrix K of `whiten`, with KᵀK = Σ⁻¹: (..., d, d)."""
        k = self.structure.whitening_matrix(self.shape_params, self.event_size)
        return np.asarray(k) / self.scale[..., None, :]

    def half_log_det(self) -> Array:
        """The half log-determinant ½ log det Σ."""
        return self.whiten(np.zeros(self.mean.shape))[1]

    def flat(self) -> Gaussian:
        """Reshape to one batch axis."""
        mean, scale, shape_params = (
            array.reshape(math.prod(self.batch_shape), array.shape[-1])
            for array in (self.mean, self.scale, self.shape_params)
        )
        return Gaussian(self.structure, mean, scale, shape_params)

    def take(self, index: Any) -> Gaussian:
        """Index the batch axes."""
        flat = self.flat()
        positions = np.arange(len(flat.mean)).reshape(self.batch_shape)[index]
        return Gaussian(
            self.structure,
            flat.mean[positions],
            flat.scale[positions],
            flat.shape_params[positions],
        )

    def whiten(self, residual: Array, observed: Array | None = None) -> tuple[Array, Array]:
        """Return z and ½ log det Σ of observed targets; residuals may have extra leading axes."""
        z, half_log_det = self.structure.standardize(
            residual,
            np.broadcast_to(self.scale, residual.shape),
            np.broadcast_to(self.shape_params, (*residual.shape[:-1], self.shape_params.shape[-1])),
            observed,
        )
        return np.asarray(z), np.asarray(half_log_det)

    # --- derived distributions -------------------------------------------------------------------

    def marginal(self, index: np.ndarray) -> Gaussian:
        """The marginal of the targets at these positions, in this order."""
        mean, scale, loadings = self.mean[..., index], self.scale[..., index], self.loadings()
        if loadings is not None:
            return Gaussian(self.structure, mean, scale, _packed(loadings[..., index, :]))
        lower = lower_factor(self.factor()[..., index, :])
        return Gaussian.of_lower(mean, scale[..., :, None] * lower)

    def affine(self, matrix: Array, offset: Array) -> Gaussian:
        """The distribution of A y + b, for A (..., m, d) with independent rows, m ≤ d.

        Raises:
            ValueError: the rows of A are linearly dependent, so A Σ Aᵀ is singular.

        """
        mean = _times(matrix, self.mean) + offset
        rows = self.factor_rows(matrix)
        size = np.linalg.norm(rows, axis=-1)
        if rows.shape[-2] <= self.event_size and (size > 0).all():
            # Rows of unit length, so that their units do not affect the test for dependence.
            lower = lower_factor(rows / size[..., None])
            left = np.diagonal(lower, axis1=-2, axis2=-1)
            if (left > 1e-14 * rows.shape[-1]).all():
                return Gaussian.of_lower(mean, size[..., None] * lower)
        raise ValueError(
            "The rows of matrix are linearly dependent: one of these linear functions is constant "
            f"or determined by the others ({matrix.shape[-2]} functions of {self.event_size} "
            "targets). Leave it out; it follows from the others."
        )

    def with_errors(self, variance: Array) -> Gaussian:
        """The distribution of y + e, with independent e of these variances, (..., d).

        Infinite variances, of what was not measured, count as 0.
        """
        batch = np.broadcast_shapes(self.batch_shape, variance.shape[:-1])
        clean, d = self.on_batch(batch), self.event_size
        noise = np.sqrt(np.where(np.isinf(variance), 0.0, variance)) / clean.scale
        loadings = clean.loadings()
        if loadings is not None:
            growth = np.sqrt(1.0 + noise**2)
            packed = _packed(loadings / growth[..., None])
            return Gaussian(self.structure, clean.mean, clean.scale * growth, packed)
        if not noise.any():
            return clean
        errors = noise[..., :, None] * np.eye(d)
        lower = lower_factor(np.concatenate([clean.factor(), errors], axis=-1))
        return Gaussian.of_lower(clean.mean, clean.scale[..., :, None] * lower)

    def condition(
        self, index: np.ndarray, residual: Array, variance: Array, exact: np.ndarray
    ) -> Gaussian:
        """Condition on measurements y + e of the targets at these positions, independent e.

        Args:
            index: (m,), positions of the measured targets.
            residual: (..., m), measurement minus mean.
            variance: (..., m), variance of e, ≥ 0; inf if not measured in this row.
            exact: (m,), which targets are known exactly, with variance 0 in every row; these are
                dropped from the result.

        """
        batch = np.broadcast_shapes(self.batch_shape, residual.shape[:-1], variance.shape[:-1])
        prior = self.on_batch(batch)
        shape = (*batch, len(index))
        s = prior.scale[..., index]
        u = np.broadcast_to(residual, shape) / s
        noise = np.sqrt(np.broadcast_to(variance, shape)) / s
        loadings = prior.loadings()
        if loadings is not None:
            return prior._condition_factors(loadings, index, u, noise, exact)
        silent = np.isinf(noise)
        rows = np.where(silent[..., None], 0.0, prior.factor()[..., index, :])
        noise = np.where(silent, 1.0, noise)[..., :, None] * np.eye(len(index))
        return prior._posterior(rows, noise[..., ~exact], np.where(silent, 0.0, u), index[exact])

    def update(self, matrix: Array, residual: Array, noise_lower: Array) -> Gaussian:
        """Condition all targets on measurements A y + e, e ~ N(0, noise_lower noise_lowerᵀ).

        Args:
            matrix: A, (..., m, d).
            residual: (..., m), measurement minus A μ.
            noise_lower: (..., m, m).

        """
        m = residual.shape[-1]
        batch = np.broadcast_shapes(
            self.batch_shape, matrix.shape[:-2], residual.shape[:-1], noise_lower.shape[:-2]
        )
        prior = self.on_batch(batch)
        rows = (matrix * prior.scale[..., None, :]) @ prior.factor()
        noise = np.broadcast_to(noise_lower, (*batch, m, m))
        return prior._posterior(rows, noise, np.broadcast_to(residual, (*batch, m)), _NONE)

    def _condition_factors(
        self, loadings: Array, index: np.ndarray, u: Array, noise: Array, exact: np.ndarray
    ) -> Gaussian:
        """Condition via the factors f of y = μ + S (V f + e): given f, targets are independent.

        With w = 1/(1 + noise²), the gain of a measurement given f, the distribution of f is normal
        with precision I + Vᵀ W V, and y given f has variance (1 − w) s².
        """
        d, r = self.event_size, loadings.shape[-1]
        share, left, known = np.zeros(self.mean.shape), np.ones(self.mean.shape), self.mean * 0.0
        share[..., index] = 1.0 / (1.0 + noise**2)
        with np.errstate(divide="ignore"):
            left[..., index] = 1.0 / (1.0 + noise**-2.0)
        known[..., index] = u
        root = np.sqrt(share)
        identity = np.broadcast_to(np.eye(r), (*self.batch_shape, r, r))
        # f = T⁻¹ (Qᵀ √w u + standard normal), with [√w V; I] = Q T
        q, t = np.linalg.qr(np.concatenate([root[..., None] * loadings, identity], axis=-2))
        spread = _transpose(solve_lower(_transpose(t), _transpose(loadings)))  # V T⁻¹
        common = _times(spread, _times(_transpose(q[..., :d, :]), root * known))
        mean = self.mean + self.scale * (share * known + left * common)
        posterior = Gaussian(
            self.structure,
            mean,
            self.scale * np.sqrt(left),
            _packed(np.sqrt(left)[..., None] * spread),
        )
        return posterior.marginal(self._without(index[exact]))

    def _posterior(self, rows: Array, noise: Array, u: Array, exact: np.ndarray) -> Gaussian:
        """Condition by the triangular factor of (measurements, targets), [[L_mm, 0], [L_tm, L_tt]].

        E[y | m] = μ + L_tm L_mm⁻¹ u, and L_tt is the factor of the covariance given m.

        Args:
            rows: (..., m, d), the measurements' rows of R's factor.
            noise: (..., m, n), factor of the measurement noise.
            u: (..., m), measured minus expected values.
            exact: positions of exactly known targets, which are dropped from the result.

        """
        m, keep = rows.shape[-2], self._without(exact)
        own = self.factor()[..., keep, :]
        silent = np.zeros((*own.shape[:-1], noise.shape[-1]))
        joint = np.concatenate(
            [np.concatenate([rows, noise], axis=-1), np.concatenate([own, silent], axis=-1)],
            axis=-2,
        )
        lower = lower_factor(joint)
        z = solve_lower(lower[..., :m, :m], u[..., None])
        scale = self.scale[..., keep]
        mean = self.mean[..., keep] + scale * (lower[..., m:, :m] @ z)[..., 0]
        return Gaussian.of_lower(mean, scale[..., :, None] * lower[..., m:, m:])

    def _without(self, index: np.ndarray) -> np.ndarray:
        """Return the positions of all other targets, in order."""
        return np.setdiff1d(np.arange(self.event_size), index)

    # --- same means, different errors ------------------------------------------------------------

    def rescale(self, factors: Array) -> Gaussian:
        """Rescale the errors: Σ' = D Σ D, D = diag(factors), for factors (..., d)."""
        return Gaussian(self.structure, self.mean, self.scale * factors, self.shape_params)

    def transform_errors(self, lower: Array) -> Gaussian:
        """Recombine the errors: Σ' = L C Cᵀ Lᵀ, L the Cholesky factor of Σ, C lower triangular."""
        return Gaussian.of_lower(self.mean, self.scale[..., :, None] * (self.lower() @ lower))


_NONE = np.zeros(0, dtype=np.intp)


def _packed(loadings: Array) -> Array:
    return np.asarray(merge_last_axes(loadings))
