"""One factor for the standard deviation of each target, fitted on a calibration set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import positive
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.calibration._models import with_scaled_errors
from keras_mvn.calibration._rows import calibration_rows
from keras_mvn.calibration.base import Recalibration, register
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.scores._observations import Observations

__all__ = ["PerTarget"]

MAX_STEPS = 200
"""Of Newton's method, which takes about ten; a bound against an endless loop, not a setting."""


@final
@register
@dataclass(frozen=True)
class PerTarget(Recalibration):
    """Σ' = D Σ D, D = diag(factors): one factor on each target's standard deviation.

    Means and correlations stay as they are. Two ways to fit the factors, which agree in the limit
    of many rows where the predicted correlations are right:

    * `objective="joint"` maximizes the joint likelihood. With aⱼ = 1/factorⱼ the negative log
      likelihood per row is ½ aᵀ Q a − Σ log aⱼ, Q = mean(r rᵀ ∘ Σ⁻¹), r = y − μ: convex in a,
      with one minimum, found by Newton's method. O(n d³) for n rows.
    * `objective="marginal"` is factorⱼ = √mean((rⱼ/σⱼ)²): every target alone gets the dispersion
      that it claims, whatever the correlations. O(n d).

    Where correlations are wrong, the joint factors widen or narrow single targets to make up for
    them, so that their intervals no longer hold what they claim; mend the correlations with
    `MatrixScaling`, or take "marginal".

    Args:
        factors: d positive numbers.

    Raises:
        ValueError: factors are not positive.

    Source: the convex problem is that of scaling a matrix to given row sums; Marshall & Olkin,
    "Scaling of matrices to achieve specified row and column sums", Numerische Mathematik 12
    (1968).

    >>> import numpy as np
    >>> normal = MultivariateNormal(np.zeros((2, 2)), covariance=np.stack([np.eye(2)] * 2))
    >>> PerTarget.fit(normal, [[2.0, 0.5], [-2.0, -0.5]])
    PerTarget(factors=(2.0, 0.5))

    """

    takes_gaps: ClassVar[bool] = True
    needs_every_target: ClassVar[bool] = True

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        factors = np.atleast_1d(positive(self.factors, "factors"))
        object.__setattr__(self, "factors", tuple(factors.tolist()))

    @classmethod
    def fit(
        cls,
        normal: MultivariateNormal,
        y: Any,
        missing: str = "raise",
        objective: str = "joint",
    ) -> Self:
        """The factors of predictions for rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, one row for each distribution.
            missing: "marginalize" reads NaN in y as "not observed"; by default it is an error.
            objective: "joint" or "marginal", as above.

        Raises:
            ValueError: no rows, shapes that don't fit, values that are not finite, a target that
                every prediction hits exactly or that no row observes, or another objective.

        """
        if objective not in _FACTORS:
            raise ValueError(
                f"objective={objective!r} is not known. Expected one of {sorted(_FACTORS)}."
            )
        rows = calibration_rows(normal, y, missing, "PerTarget.fit")
        exact = np.flatnonzero(np.nansum(rows.standardized() ** 2, axis=0) == 0)
        if len(exact):
            names = target_names_of(normal.target_names, normal.event_size)
            raise ValueError(
                f"PerTarget.fit: every prediction of {[names[i] for i in exact]} equals y, so no "
                "factor fits."
            )
        return cls(tuple(_FACTORS[objective](rows).tolist()))

    def _apply_to_normal(self, normal: MultivariateNormal) -> MultivariateNormal:
        return normal.rescale_targets(self.factors)

    def _apply_to_model(self, model: keras.Model) -> keras.Model:
        return with_scaled_errors(model, np.array(self.factors))


def _marginal(rows: Observations) -> Array:
    return np.sqrt(np.nanmean(rows.standardized() ** 2, axis=0))


def _joint(rows: Observations) -> Array:
    return 1.0 / _minimizer(_quadratic_form(rows), rows.is_observed.mean(axis=0))


def _quadratic_form(rows: Observations) -> Array:
    """Q with aᵀ Q a = mean of the squared distances for residuals a ∘ r: (d, d).

    Whitening is linear: of the residual of each target alone, zⱼ, Q_jk is the mean of zⱼ · z_k.
    """
    n, d = rows.y.shape
    q = np.zeros((d, d))
    index = np.arange(d)
    for part in rows.parts(3 * d * d):
        alone = np.zeros((d, *part.y.shape))
        alone[index, :, index] = part.residual.T
        observed = None if part.observed is None else np.broadcast_to(part.observed, alone.shape)
        z = part.gaussian.whiten(alone, observed)[0].reshape(d, -1)
        q += z @ z.T
    return q / n


def _minimizer(q: Array, weight: Array) -> Array:
    """The a > 0 with the smallest ½ aᵀ Q a − Σ wⱼ log aⱼ, by damped Newton steps.

    The objective over min w is self-concordant, so steps of 1/(1 + λ), λ the Newton decrement,
    stay positive and converge from anywhere (Nesterov & Nemirovskii 1994).
    """
    unit = np.sqrt(weight / np.diagonal(q))
    q = q * unit[:, None] * unit
    a = np.ones(len(q))
    for _ in range(MAX_STEPS):
        gradient = q @ a - weight / a
        step = np.linalg.solve(q + np.diag(weight / a**2), gradient)
        decrement = np.sqrt(max(gradient @ step, 0.0) / weight.min())
        a = a - step / (1.0 + decrement)
        if decrement < 1e-12:
            break
    return unit * a


_FACTORS = {"joint": _joint, "marginal": _marginal}
