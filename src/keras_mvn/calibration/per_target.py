"""Recalibration by one factor per target, fitted on a calibration set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import keras
import numpy as np

from keras_mvn._core.checks import positive
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.calibration._models import with_scaled_errors
from keras_mvn.calibration._rows import calibration_rows
from keras_mvn.calibration._weights import row_weights
from keras_mvn.calibration.base import Recalibration, register
from keras_mvn.distributions.base import Distribution
from keras_mvn.scores._observations import Observations

__all__ = ["PerTarget"]

MAX_STEPS = 200
"""Maximum number of Newton steps; about ten are needed, so this only prevents endless loops."""


@final
@register
@dataclass(frozen=True)
class PerTarget(Recalibration):
    """Recalibration Σ' = D Σ D, D = diag(factors): one factor on each target's standard deviation.

    Means and correlations do not change. There are two ways to fit the factors, which agree in the
    limit of many rows if the predicted correlations are right:

    * `objective="joint"` maximizes the joint likelihood. With aⱼ = 1/factorⱼ the negative log
      likelihood per row is ½ aᵀ Q a − Σ log aⱼ, Q = mean(r rᵀ ∘ Σ⁻¹), r = y − μ: convex in a,
      with one minimum, found by Newton's method. The cost is O(n d³) for n rows.
    * `objective="marginal"` uses factorⱼ = √mean((rⱼ/σⱼ)²): the standardized errors of each target
      get mean square 1, regardless of the correlations. The cost is O(n d).

    Both maximize a likelihood with `robust=False`. By default, no row counts more than one at the
    distance that 1 % exceed (of its target, for "marginal"), as in `Temperature`: one row of 100
    moves a factor by 5 % at most ("marginal"), by 7 % for "joint" and d = 3.

    If correlations are wrong, the joint factors widen or narrow individual targets to compensate,
    and their intervals lose their nominal coverage; correct the correlations with `MatrixScaling`,
    or use "marginal".

    Args:
        factors: d positive numbers.

    Raises:
        ValueError: factors are not positive.

    Source: the convex problem is that of scaling a matrix to given row sums; Marshall & Olkin,
    "Scaling of matrices to achieve specified row and column sums", Numerische Mathematik 12
    (1968).

    >>> import numpy as np
    >>> from keras_mvn import MultivariateNormal
    >>> normal = MultivariateNormal(np.zeros((2, 2)), covariance=np.stack([np.eye(2)] * 2))
    >>> PerTarget.fit(normal, [[2.0, 0.5], [-2.0, -0.5]], robust=False)
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
        normal: Distribution,
        y: Any,
        missing: str = "raise",
        objective: str = "joint",
        robust: bool = True,
    ) -> Self:
        """Fit the factors to predictions for rows that were not used for training.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), observed values, one row per distribution.
            missing: "marginalize" treats NaN in y as missing; by default NaN is an error.
            objective: "joint" or "marginal", as above.
            robust: bool, whether the influence of each row is bounded.

        Raises:
            ValueError: there are no rows, shapes do not match, values are not finite, all
                predictions of a target are exact, a target is never observed, or objective is
                unknown.

        """
        if objective not in _FACTORS:
            raise ValueError(
                f"objective={objective!r} is not known. Expected one of {sorted(_FACTORS)}."
            )
        rows = calibration_rows(normal, y, missing, "PerTarget.fit")
        exact = np.flatnonzero(np.nansum(rows.in_scales() ** 2, axis=0) == 0)
        if len(exact):
            names = target_names_of(normal.target_names, normal.event_size)
            raise ValueError(
                f"PerTarget.fit: every prediction of {[names[i] for i in exact]} equals y, so the "
                "factor would be 0. Are y and the predicted means the same array?"
            )
        return cls(tuple(_FACTORS[objective](rows, robust).tolist()))

    def _apply_to_normal(self, normal: Any) -> Any:
        return normal.rescale_targets(self.factors)

    def _apply_to_model(self, model: keras.Model) -> keras.Model:
        return with_scaled_errors(model, np.array(self.factors))


def _marginal(rows: Observations, robust: bool) -> Array:
    """Maximize the likelihood of each target alone: mean e², of weighted rows."""
    squares = rows.in_scales() ** 2

    def weighted(factors: Array) -> Array:
        weights = row_weights(rows.law, (squares / factors**2).T, 1.0, robust).T
        return np.sqrt(np.nanmean(weights * squares, axis=0))

    return _fixed_point(weighted, np.sqrt(np.nanmean(squares, axis=0)))


def _joint(rows: Observations, robust: bool) -> Array:
    """Maximize the joint likelihood of weighted rows."""
    share = rows.is_observed.mean(axis=0)

    def weighted(factors: Array) -> Array:
        return 1.0 / _minimizer(_quadratic_form(rows, factors, robust), share)

    return _fixed_point(weighted, _marginal(rows, robust))


def _fixed_point(step: Callable[[Array], Array], start: Array) -> Array:
    """Repeat the steps of an EM algorithm, of which a normal needs one."""
    before, found = start, step(start)
    for _ in range(MAX_STEPS):
        if (np.abs(found - before) <= 1e-10 * found).all():
            break
        before, found = found, step(found)
    return found


def _quadratic_form(rows: Observations, factors: Array, robust: bool) -> Array:
    """Return Q with aᵀ Q a = mean weighted squared Mahalanobis distance of a ∘ r: (d, d).

    Whitening is linear: with zⱼ the whitened residual of target j alone, Q_jk = mean(w zⱼ · z_k),
    w the weight of a row whose standard deviations are multiplied by the factors.
    """
    n, d = rows.y.shape
    q = np.zeros((d, d))
    index = np.arange(d)
    for part in rows.parts(3 * d * d):
        alone = np.zeros((d, *part.y.shape))
        alone[index, :, index] = (part.y - part.gaussian.mean).T
        observed = None if part.observed is None else np.broadcast_to(part.observed, alone.shape)
        z = part.gaussian.whiten(alone, observed)[0]
        now = (np.tensordot(1.0 / factors, z, axes=1) ** 2).sum(axis=-1)
        z = z * np.sqrt(row_weights(part.law, now, part.count, robust)).reshape(-1, 1)
        z = z.reshape(d, -1)
        q += z @ z.T
    return q / n


def _minimizer(q: Array, weight: Array) -> Array:
    """Return the a > 0 that minimizes ½ aᵀ Q a − Σ wⱼ log aⱼ, by damped Newton steps.

    The objective divided by min w is self-concordant, so with steps of 1/(1 + λ), λ the Newton
    decrement, a stays positive and converges from any start (Nesterov & Nemirovskii 1994).
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
