"""Banded precision for ordered targets: each depends directly on a few preceding ones."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.numeric import (
    constant_like,
    namespace,
    solve_lower,
    split_last_axis,
    static_gather,
)
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances._from_dense import cholesky
from keras_mvn.covariances._solver_free import inverse_unit_lower
from keras_mvn.covariances._unit_lower import zero_half_log_det
from keras_mvn.covariances.base import Covariance, register

__all__ = ["Banded"]


@final
@register
@dataclass(frozen=True)
class Banded(Covariance):
    """Banded precision for ordered targets: Σ⁻¹ = Pᵀ P, P = (I + N) S⁻¹, N_ij = 0 for i − j > b.

    A `PrecisionCholesky` in which target i, given all preceding targets, depends only on the
    preceding b: an antedependence model of order b, with coefficients that may differ between
    targets. Meant for targets with an order, such as the horizons of a forecast or the depths of a
    profile. Targets that are more than b apart are still correlated, through those between.

    `shape_params` holds the diagonals of N, starting next to the main diagonal, each from top to
    bottom: k = (d − 1) + (d − 2) + … + (d − b). z = (I + N) u is computed by shifted products, so
    time and memory per row are O(d b), also for samples in NumPy (a recursion over d). Samples as
    backend tensors, incomplete rows and the dense Σ cost as much as for `PrecisionCholesky`. N
    needs no bound.

    Args:
        bandwidth: int b ≥ 0, number of preceding targets that each target depends on; with d − 1
            or more, the structure is `PrecisionCholesky`.

    Raises:
        ValueError: `bandwidth` is not an integer ≥ 0.

    Source: Zimmerman & Núñez-Antón, "Antedependence models for longitudinal data", 2009.

    >>> import numpy as np
    >>> lag = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    >>> scale, n = Banded(bandwidth=1).from_covariance(0.6**lag)  # autoregressive, order 1
    >>> scale.round(4), n.round(4)
    (array([1. , 0.8, 0.8, 0.8]), array([-0.75, -0.6 , -0.6 ]))

    """

    bandwidth: int

    triangular: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole(self.bandwidth, "bandwidth", "the number of preceding targets each depends on", 0)

    def shape_size(self, event_size: int) -> int:
        """Return k = (d − 1) + … + (d − b), the total length of the diagonals of N."""
        return sum(event_size - lag for lag in self._lags(event_size))

    def _lags(self, event_size: int) -> range:
        return range(1, min(self.bandwidth, event_size - 1) + 1)

    def _diagonals(self, shape_params: Tensor, event_size: int) -> list[tuple[int, Tensor]]:
        """Return pairs of a lag and the d − lag entries N[i + lag, i]."""
        found, start = [], 0
        for lag in self._lags(event_size):
            found.append((lag, shape_params[..., start : start + event_size - lag]))
            start += event_size - lag
        return found

    def whiten(self, shape_params: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = (I + N) u and half_log_det = 0."""
        xp, z = namespace(u), u
        for lag, entries in self._diagonals(shape_params, u.shape[-1]):
            product = entries * u[..., :-lag]
            z = z + xp.concatenate([xp.zeros_like(u[..., :lag]), product], axis=-1)
        return z, zero_half_log_det(u)

    def whiten_vjp(
        self, shape_params: Tensor, u: Tensor, z: Tensor, z_bar: Tensor, half_log_det_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return N_bar = z_bar uᵀ inside the band, and u_bar = (I + N)ᵀ z_bar."""
        xp, u_bar = namespace(u), z_bar
        shape_bar = [shape_params[..., :0]]
        for lag, entries in self._diagonals(shape_params, u.shape[-1]):
            product = entries * z_bar[..., lag:]
            u_bar = u_bar + xp.concatenate([product, xp.zeros_like(u[..., :lag])], axis=-1)
            shape_bar.append(z_bar[..., lag:] * u[..., :-lag])
        return xp.concatenate(shape_bar, axis=-1), u_bar

    def color(self, shape_params: Tensor, z: Tensor) -> Tensor:
        """Solve (I + N) u = z: target by target for NumPy, by a dense solve for tensors."""
        d = z.shape[-1]
        if namespace(shape_params, z) is not np:
            return solve_lower(self.whitening_matrix(shape_params, d), z[..., None])[..., 0]
        u = np.array(z)
        diagonals = self._diagonals(shape_params, d)
        for i in range(1, d):
            for lag, entries in diagonals[:i]:
                u[..., i] -= entries[..., i - lag] * u[..., i - lag]
        return u

    def whitening_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return I + N, dense."""
        flat = static_gather(shape_params, *_band_tables(event_size, self.bandwidth))
        identity = constant_like(np.eye(event_size), flat)
        return split_last_axis(flat, event_size, event_size) + identity

    def coloring_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return (I + N)⁻¹, dense."""
        return inverse_unit_lower(self.whitening_matrix(shape_params, event_size))

    def shape_matrix(self, shape_params: Tensor, event_size: int) -> Tensor:
        """Return R = (I + N)⁻¹ (I + N)⁻ᵀ."""
        inverse = self.coloring_matrix(shape_params, event_size)
        return inverse @ namespace(inverse).swapaxes(inverse, -1, -2)

    def from_covariance(self, covariance: Array) -> tuple[Array, Array]:
        """Regress each target on the preceding b: the closest Σ in Kullback–Leibler divergence.

        Exact for a Σ whose inverse has a Cholesky factor of this bandwidth.

        Raises:
            ValueError: Σ is not positive definite.

        """
        d = covariance.shape[-1]
        with np.errstate(invalid="ignore", divide="ignore"):  # `cholesky` rejects invalid results
            stddev = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
            correlation = covariance / stddev[..., :, None] / stddev[..., None, :]
        scale = np.empty_like(stddev)
        rows = np.zeros_like(correlation)
        for i in range(d):
            window = slice(max(0, i - self.bandwidth), i + 1)
            factor = cholesky(correlation[..., window, window], "covariance")
            before, last = factor[..., :-1, :-1], factor[..., -1, :-1, None]
            scale[..., i] = factor[..., -1, -1]
            slopes = solve_lower(before, last, transposed=True)[..., 0]
            rows[..., i, window.start : i] = -slopes
        n = rows * scale[..., None, :] / scale[..., :, None]
        diagonals = [np.diagonal(n, -lag, axis1=-2, axis2=-1) for lag in self._lags(d)]
        return stddev * scale, np.concatenate([scale[..., :0], *diagonals], axis=-1)


@functools.lru_cache(maxsize=64)
def _band_tables(d: int, bandwidth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the packed index (or −1) of each flat entry, and the flat index of each packed one."""
    lags = range(1, min(bandwidth, d - 1) + 1)
    columns = [np.arange(d - lag) for lag in lags]
    flat = [(column + lag) * d + column for lag, column in zip(lags, columns, strict=True)]
    of_entry = np.concatenate([np.zeros(0, int), *flat]).astype("int32")
    of_matrix = np.full(d * d, -1, "int32")
    of_matrix[of_entry] = np.arange(len(of_entry), dtype="int32")
    return of_matrix, of_entry
