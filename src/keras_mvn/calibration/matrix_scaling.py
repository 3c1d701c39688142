"""Linear recombination of the errors of all targets, fitted on a calibration set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import finite, lower_triangular, square
from keras_mvn._core.numeric import solve_lower
from keras_mvn._core.types import Array
from keras_mvn.calibration._models import with_last_layer
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration._weights import row_weights
from keras_mvn.calibration.base import Recalibration, register
from keras_mvn.calibration.layer import CovarianceMap
from keras_mvn.calibration.temperature import most_likely_square
from keras_mvn.covariances._ledoit_wolf import ledoit_wolf_share
from keras_mvn.distributions._gaussian import lower_factor
from keras_mvn.distributions.base import Distribution
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.scores._observations import Observations

__all__ = ["MatrixScaling"]


@final
@register
@dataclass(frozen=True, eq=False)
class MatrixScaling(Recalibration):
    """Recalibration Σ' = L M Lᵀ, Σ = L Lᵀ: corrects scales and correlations in closed form.

    L is the Cholesky factor of Σ. With z = L⁻¹ (y − μ), which is N(0, I) if the model is right,
    M = mean(z zᵀ) maximizes the likelihood; M = C Cᵀ. A temperature is the special case M = t² I.
    As d(d + 1)/2 numbers are many for a small calibration set, M is shrunk toward the
    temperature's: (1 − ρ) mean(z zᵀ) + ρ t² I. Shrinkage does not change tr M, and therefore not
    the temperature.

    `shrinkage="auto"` uses the ρ of Ledoit and Wolf, which minimizes the expected squared error
    ‖M − E z zᵀ‖² (for known mean 0, and with an unbiased estimate of the error; ρ is 1 for a
    single row). It is large if z is heavy-tailed, tends to 0 with many rows, and allows fewer rows
    than targets. `shrinkage=0` is maximum likelihood.

    No row counts more than one at the distance that 1 % exceed, as in `Temperature`; `robust=False`
    is for the plain mean. One row of 100 moves a standard deviation by 7 % at most (d = 3).

    L depends on the order of the targets, and so does the family of Σ' (unless Σ is the same for
    every row). The result is a dense covariance, regardless of the original structure.

    Args:
        scale_tril: C, (d, d), lower triangular with a positive diagonal.
        shrinkage: float, ρ used in the fit, for information only.

    Raises:
        ValueError: scale_tril is not such a matrix.

    Source: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices", Journal of Multivariate Analysis 88 (2004).

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal(np.zeros((500, 2)), covariance=np.stack([np.eye(2)] * 500))
    >>> truth = MultivariateNormal(np.zeros((500, 2)), scale_tril=[[1.0, 0.0], [1.6, 1.2]])
    >>> calibration = MatrixScaling.fit(normal, truth.sample(seed=0))
    >>> calibration.apply(normal).correlation[0, 0, 1].round(1)  # the truth is 0.8
    np.float64(0.8)

    """

    scale_tril: Array
    shrinkage: float = 0.0

    def __post_init__(self) -> None:
        c = finite(self.scale_tril, "scale_tril")
        c = lower_triangular(square(c, "scale_tril", c.shape[-1:]))
        c.setflags(write=False)
        object.__setattr__(self, "scale_tril", c)

    @classmethod
    def fit(
        cls,
        normal: Distribution,
        y: Any,
        missing: str = "raise",
        shrinkage: float | str = "auto",
        robust: bool = True,
    ) -> Self:
        """Fit the matrix to predictions for rows that were not used for training.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), observed values, one row per distribution.
            missing: NaN is an error for either value, because z needs complete rows.
            shrinkage: float ρ in [0, 1], or "auto".
            robust: bool, whether the influence of each row is bounded.

        Raises:
            ValueError: there are no rows, shapes do not match, values are NaN or infinite,
                shrinkage is invalid, or there are fewer distinct rows than targets without
                shrinkage.

        """
        share = _checked_shrinkage(shrinkage)
        rows = complete_rows(normal, y, "MatrixScaling.fit", missing)
        z = _whiten(rows)
        start = z / _temperature(rows, robust)
        if share is None:
            share = ledoit_wolf_share(_weighted(rows, z, start, robust), ddof=1)
        c = _most_likely(rows, z, start, share, robust)
        if not (np.diagonal(c) > _SINGULAR * np.linalg.norm(c, axis=-1)).all():
            raise ValueError(
                f"MatrixScaling.fit: the errors of {len(z)} rows span fewer than {len(c)} "
                f"dimensions, so with shrinkage={share:.3g} some direction would have no "
                "variance. Use more rows, a larger shrinkage, or Temperature."
            )
        return cls(c, share)

    def layer(self, head: MultivariateNormalHead, **kwargs: Any) -> CovarianceMap:
        """Return a layer that maps the output of this head to the calibrated one.

        Raises:
            ValueError: the head is for a different number of targets.

        """
        if head.event_size != len(self.scale_tril):
            raise ValueError(
                f"This recalibration is for {len(self.scale_tril)} targets; the head "
                f"{head.name!r} has {head.event_size}."
            )
        return CovarianceMap(
            self.scale_tril,
            head.covariance.wire,
            layout=head.layout,
            target_names=head.target_names,
            dtype=head.dtype_policy,
            **kwargs,
        )

    def _apply_to_normal(self, normal: Any) -> Any:
        return normal.transform_errors(self.scale_tril)

    def _apply_to_model(self, model: keras.Model) -> keras.Model:
        return with_last_layer(model, self.layer)


def _whiten(rows: Observations) -> Array:
    """Return z = L⁻¹ (y − μ), L the Cholesky factor of Σ: (n, d)."""
    d = rows.y.shape[-1]
    parts = [
        solve_lower(part.gaussian.scale_tril(), (part.y - part.gaussian.mean)[..., None])[..., 0]
        for part in rows.parts(2 * d * d)
    ]
    return np.concatenate(parts)


def _weighted(rows: Observations, z: Array, now: Array, robust: bool) -> Array:
    """Return z, each row times the root of its weight at its present distance ‖now‖²."""
    weights = row_weights(rows.law, (now**2).sum(axis=-1), float(z.shape[-1]), robust)
    return z * np.sqrt(weights).reshape(-1, 1)


def _temperature(rows: Observations, robust: bool) -> float:
    """Return the factor at which rows are weighted first: 1 for a likelihood."""
    if not robust:
        return 1.0
    return math.sqrt(most_likely_square(rows.law, rows.squared_distances, rows.count, True) or 1.0)


def _most_likely(rows: Observations, z: Array, start: Array, share: float, robust: bool) -> Array:
    """Return the factor C of the (shrunk) most likely matrix, by EM; one step for a normal."""
    c = _shrunk_factor(_weighted(rows, z, start, robust), share)
    for _ in range(_MAX_STEPS):
        before = c
        if not np.diagonal(c).all():
            break  # singular: the caller says so
        now = solve_lower(c, z.T).T
        c = _shrunk_factor(_weighted(rows, z, now, robust), share)
        if np.abs(c - before).max() <= 1e-10 * np.abs(c).max():
            break
    return c


def _shrunk_factor(z: Array, share: float) -> Array:
    """Return C with C Cᵀ = (1 − ρ) mean(z zᵀ) + ρ t² I, without forming that matrix: (d, d)."""
    n, d = z.shape
    t = np.sqrt(np.mean(z * z))
    own = np.sqrt((1.0 - share) / n) * z.T
    return lower_factor(np.concatenate([own, np.sqrt(share) * t * np.eye(d)], axis=-1))


_MAX_STEPS = 500

_SINGULAR = 1e-13
"""Ratio of diagonal to row norm of C below which a row depends linearly on earlier rows."""


def _checked_shrinkage(shrinkage: float | str) -> float | None:
    """Return ρ, or None for "auto"."""
    if shrinkage == "auto":
        return None
    if isinstance(shrinkage, str) or not 0.0 <= shrinkage <= 1.0:
        raise ValueError(f"shrinkage={shrinkage!r} must be 'auto' or a number in [0, 1].")
    return float(shrinkage)
