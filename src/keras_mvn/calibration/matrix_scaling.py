"""The errors of all targets recombined by one matrix, fitted on a calibration set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import finite, lower_triangular, square
from keras_mvn._core.numeric import solve_lower
from keras_mvn._core.types import Array
from keras_mvn.calibration._models import with_last_layer
from keras_mvn.calibration._rows import complete_rows
from keras_mvn.calibration.base import Recalibration, register
from keras_mvn.calibration.layer import CovarianceMap
from keras_mvn.covariances._ledoit_wolf import ledoit_wolf_share
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._gaussian import lower_factor
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.scores._observations import Observations

__all__ = ["MatrixScaling"]


@final
@register
@dataclass(frozen=True, eq=False)
class MatrixScaling(Recalibration):
    """Σ' = L M Lᵀ, L the Cholesky factor of Σ: mends correlations and scales in one closed form.

    With z = L⁻¹ (y − μ), which is N(0, I) if the model is right, M = mean(z zᵀ) maximizes the
    likelihood; M = C Cᵀ. A temperature is M = t² I. d(d + 1)/2 numbers are fitted, many for a
    small calibration set, so that M is shrunk towards the temperature's: (1 − ρ) mean(z zᵀ) +
    ρ t² I. tr M, and with it the temperature, stays what it is.

    `shrinkage="auto"` takes the ρ of Ledoit and Wolf, the one with the smallest expected squared
    error ‖M − E z zᵀ‖² (about the known mean 0, and with an unbiased estimate of the error, whose
    ρ is 1 for a single row). It is large where z is heavy-tailed, tends to 0 with many rows, and
    makes fewer rows than targets possible. The maximum likelihood is `shrinkage=0`.

    L depends on the order of the targets, and so does the family of Σ' (with the same Σ for every
    row, it does not). The result is a dense covariance whatever the structure was.

    Args:
        scale_tril: C, (d, d), lower triangular with a positive diagonal.
        shrinkage: the ρ that it was fitted with, for the record.

    Raises:
        ValueError: C is not such a matrix.

    Source: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance
    matrices", Journal of Multivariate Analysis 88 (2004).

    >>> import numpy as np
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
        normal: MultivariateNormal,
        y: Any,
        missing: str = "raise",
        shrinkage: float | str = "auto",
    ) -> Self:
        """The matrix of predictions for rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, one row for each distribution.
            missing: NaN is an error either way: rows with gaps have no such z.
            shrinkage: ρ in [0, 1], or "auto".

        Raises:
            ValueError: no rows, shapes that don't fit, NaN or infinite values, another shrinkage,
                or fewer different rows than targets without shrinkage.

        """
        share = _checked_shrinkage(shrinkage)
        rows = complete_rows(normal, y, "MatrixScaling.fit", missing)
        z = _whiten(rows)
        if share is None:
            share = ledoit_wolf_share(z, ddof=1)
        c = _shrunk_factor(z, share)
        if not (np.diagonal(c) > _SINGULAR * np.linalg.norm(c, axis=-1)).all():
            raise ValueError(
                f"MatrixScaling.fit: the errors of {len(z)} rows span fewer than {len(c)} "
                f"dimensions, so that with shrinkage={share:.3g} some direction would have no "
                "variance. Use more rows, a larger shrinkage, or Temperature."
            )
        return cls(c, share)

    def layer(self, head: MultivariateNormalHead, **kwargs: Any) -> CovarianceMap:
        """A layer that maps the output of this head to the calibrated one.

        Raises:
            ValueError: a head for another number of targets.

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

    def _apply_to_normal(self, normal: MultivariateNormal) -> MultivariateNormal:
        return normal.transform_errors(self.scale_tril)

    def _apply_to_model(self, model: keras.Model) -> keras.Model:
        return with_last_layer(model, self.layer)


def _whiten(rows: Observations) -> Array:
    """z = L⁻¹ (y − μ), L the Cholesky factor: (n, d)."""
    d = rows.y.shape[-1]
    parts = [
        solve_lower(part.gaussian.scale_tril(), part.residual[..., None])[..., 0]
        for part in rows.parts(2 * d * d)
    ]
    return np.concatenate(parts)


def _shrunk_factor(z: Array, share: float) -> Array:
    """C with C Cᵀ = (1 − ρ) mean(z zᵀ) + ρ t² I, without forming it: (d, d)."""
    n, d = z.shape
    t = np.sqrt(np.mean(z * z))
    own = np.sqrt((1.0 - share) / n) * z.T
    return lower_factor(np.concatenate([own, np.sqrt(share) * t * np.eye(d)], axis=-1))


_SINGULAR = 1e-13
"""Of a row of C, the share of its length below which it depends on the rows before it."""


def _checked_shrinkage(shrinkage: float | str) -> float | None:
    """ρ, or None for "auto"."""
    if shrinkage == "auto":
        return None
    if isinstance(shrinkage, str) or not 0.0 <= shrinkage <= 1.0:
        raise ValueError(f"shrinkage={shrinkage!r} must be 'auto' or a number in [0, 1].")
    return float(shrinkage)
