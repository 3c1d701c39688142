"""The algebra of normal distributions on arrays: margins, linear functions, conditioning.

A `Gaussian` is N(μ, Σ), Σ = S R S, without names or checks: `MultivariateNormal` has those and
calls what is here. Everything works on factors F with R = F Fᵀ, which a QR factorization turns into
triangular ones: Σ is never formed, inverted or factored, so that √κ of float64's accuracy is lost
where a covariance would lose κ. Scales are kept apart, so that units lose nothing.

Structures of the form R = I + V Vᵀ (`Covariance.loadings`) stay in it, and nothing of size d × d
is formed for them: given the factors their targets are independent.

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
    """L lower with L Lᵀ = F Fᵀ and a diagonal ≥ 0: (..., m, p) → (..., m, m), p ≥ m."""
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
    """A batch N(μ, S R S): mean and scale (..., d), shape_params (..., k), all of one batch."""

    structure: Covariance
    mean: Array
    scale: Array
    shape_params: Array

    @classmethod
    def of_lower(cls, mean: Array, lower: Array) -> Gaussian:
        """From the Cholesky factor of Σ."""
        return cls(Cholesky(), mean, *Cholesky().from_matrix(lower))

    @classmethod
    def of(cls, normal: Any) -> Gaussian:
        """The arrays of a distribution that has a `structure` and its `parameters`."""
        return cls(normal.structure, *normal.parameters)

    @classmethod
    def concatenate(cls, parts: Sequence[Gaussian]) -> Gaussian:
        """Join along the first batch axis; by Cholesky factors where structures differ."""
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
        """d."""
        return int(self.mean.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes."""
        return tuple(self.mean.shape[:-1])

    def on_batch(self, batch: tuple[int, ...]) -> Gaussian:
        """The same on larger batch axes, as views."""
        mean, scale, shape_params = (
            np.broadcast_to(array, (*batch, array.shape[-1]))
            for array in (self.mean, self.scale, self.shape_params)
        )
        return Gaussian(self.structure, mean, scale, shape_params)

    def loadings(self) -> Array | None:
        """V with R = I + V Vᵀ, (..., d, r), or None."""
        return self.structure.loadings(self.shape_params, self.event_size)

    def factor(self) -> Array:
        """F with R = F Fᵀ, the structure's own: (..., d, d)."""
        return np.asarray(self.structure.coloring_matrix(self.shape_params, self.event_size))

    def lower(self) -> Array:
        """The Cholesky factor of R."""
        factor = self.factor()
        return factor if self.structure.triangular else lower_factor(factor)

    def factor_rows(self, matrix: Array) -> Array:
        """A F, with F Fᵀ = Σ: (..., m, d) → (..., m, p); p = d + r for loadings, else d."""
        scaled = matrix * self.scale[..., None, :]
        loadings = self.loadings()
        if loadings is None:
            return scaled @ self.factor()
        return np.concatenate([scaled, scaled @ loadings], axis=-1)

    def scale_tril(self) -> Array:
        """L of Σ = L Lᵀ."""
        return self.scale[..., None] * self.lower()

    def shape_matrix(self) -> Array:
        """R."""
        return np.asarray(self.structure.shape_matrix(self.shape_params, self.event_size))

    def covariance(self) -> Array:
        """Σ."""
        return np.asarray(self.structure.covariance(self.scale, self.shape_params))

    def variance(self) -> Array:
        """The diagonal of Σ."""
        return np.asarray(self.structure.variance(self.scale, self.shape_params))

    def errors(self, standard_normal: Callable[[int], Array]) -> Array:
        """Draws from N(0, Σ) in the units of y: (n, ..., d).

        Args:
            standard_normal: gives independent standard normal numbers, (n, ..., m) for an m.

        """
        d, loadings = self.event_size, self.loadings()
        if loadings is None:
            z, factor = standard_normal(d), self.factor()
            # All draws of a distribution are the columns of one product.
            return self.scale * np.moveaxis(factor @ np.moveaxis(z, 0, -1), -1, 0)
        z, r = standard_normal(d + loadings.shape[-1]), loadings.shape[-1]
        common = np.moveaxis(loadings @ np.moveaxis(z[..., d:], 0, -1), -1, 0) if r else 0.0
        return self.scale * (z[..., :d] + common)

    def whitening(self) -> Array:
        """K with KᵀK = Σ⁻¹, the matrix of `whiten`: (..., d, d)."""
        k = self.structure.whitening_matrix(self.shape_params, self.event_size)
        return np.asarray(k) / self.scale[..., None, :]

    def half_log_det(self) -> Array:
        """½ log det Σ."""
        return self.whiten(np.zeros(self.mean.shape))[1]

    def flat(self) -> Gaussian:
        """With one batch axis."""
        mean, scale, shape_params = (
            array.reshape(math.prod(self.batch_shape), array.shape[-1])
            for array in (self.mean, self.scale, self.shape_params)
        )
        return Gaussian(self.structure, mean, scale, shape_params)

    def take(self, index: Any) -> Gaussian:
        """By index on the batch axes."""
        flat = self.flat()
        positions = np.arange(len(flat.mean)).reshape(self.batch_shape)[index]
        return Gaussian(
            self.structure,
            flat.mean[positions],
            flat.scale[positions],
            flat.shape_params[positions],
        )

    def whiten(self, residual: Array, observed: Array | None = None) -> tuple[Array, Array]:
        """z and ½ log det Σ, of what was observed; residuals may have more batch axes in front."""
        z, half_log_det = self.structure.standardize(
            residual,
            np.broadcast_to(self.scale, residual.shape),
            np.broadcast_to(self.shape_params, (*residual.shape[:-1], self.shape_params.shape[-1])),
            observed,
        )
        return np.asarray(z), np.asarray(half_log_det)

    # --- other distributions from this one -------------------------------------------------------

    def marginal(self, index: np.ndarray) -> Gaussian:
        """Of the targets at these positions, in this order."""
        mean, scale, loadings = self.mean[..., index], self.scale[..., index], self.loadings()
        if loadings is not None:
            return Gaussian(self.structure, mean, scale, _packed(loadings[..., index, :]))
        lower = lower_factor(self.factor()[..., index, :])
        return Gaussian.of_lower(mean, scale[..., :, None] * lower)

    def affine(self, matrix: Array, offset: Array) -> Gaussian:
        """Of A y + b, for A (..., m, d) with independent rows, m ≤ d.

        Raises:
            ValueError: the rows of A are linearly dependent, so that A Σ Aᵀ is singular.

        """
        mean = _times(matrix, self.mean) + offset
        rows = self.factor_rows(matrix)
        size = np.linalg.norm(rows, axis=-1)
        if rows.shape[-2] <= self.event_size and (size > 0).all():
            # Rows of unit length: their own units decide nothing about what is dependent.
            lower = lower_factor(rows / size[..., None])
            left = np.diagonal(lower, axis1=-2, axis2=-1)
            if (left > 1e-14 * rows.shape[-1]).all():
                return Gaussian.of_lower(mean, size[..., None] * lower)
        raise ValueError(
            "The rows of matrix are linearly dependent: one of these linear functions is fixed by "
            f"the others, or by nothing ({matrix.shape[-2]} functions of {self.event_size} "
            "targets). Leave it out; it follows from them."
        )

    def condition(
        self, index: np.ndarray, residual: Array, variance: Array, exact: np.ndarray
    ) -> Gaussian:
        """Given measurements y + e of the targets at these positions, independent e.

        Args:
            index: (m,) positions.
            residual: (..., m), measured less mean.
            variance: (..., m) of e ≥ 0; inf: not measured in this row.
            exact: (m,) which targets are known exactly, their variance being 0 in every row: they
                are no part of the result.

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
        """Given A y + e = measured, e ~ N(0, noise_lower noise_lowerᵀ): of all targets.

        Args:
            matrix: (..., m, d).
            residual: (..., m), measured less A μ.
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
        """Given the factors f, targets are independent: y = μ + S (V f + e).

        With w = 1/(1 + noise²), the share of a deviation that a measurement keeps, f is normal
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
        """From the triangular factor of (measurements, targets): [[L_mm, 0], [L_tm, L_tt]].

        E[y | m] = μ + L_tm L_mm⁻¹ u, and L_tt is the factor of the covariance given m.

        Args:
            rows: (..., m, d), the measurements' rows of R's factor.
            noise: (..., m, n), the factor of their noise.
            u: (..., m), measured less expected.
            exact: positions of the targets that are known exactly, no part of the result.

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
        """The positions of all other targets, in their order."""
        return np.setdiff1d(np.arange(self.event_size), index)

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Random draws: (count, ..., d)."""
        return self.mean + self.errors(
            lambda size: rng.standard_normal((count, *self.batch_shape, size))
        )

    # --- the same means, other errors ------------------------------------------------------------

    def rescale(self, factors: Array) -> Gaussian:
        """Σ' = D Σ D, D = diag(factors): (..., d)."""
        return Gaussian(self.structure, self.mean, self.scale * factors, self.shape_params)

    def transform_errors(self, lower: Array) -> Gaussian:
        """Σ' = L C Cᵀ Lᵀ for the Cholesky factor L of Σ and a lower triangular C."""
        return Gaussian.of_lower(self.mean, self.scale[..., :, None] * (self.lower() @ lower))


_NONE = np.zeros(0, dtype=np.intp)


def _packed(loadings: Array) -> Array:
    return np.asarray(merge_last_axes(loadings))
