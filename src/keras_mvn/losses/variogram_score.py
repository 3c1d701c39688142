"""The variogram score, which compares the differences between targets, pair by pair."""

from __future__ import annotations

from typing import Any, final

import keras
from keras import ops

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import DEFAULT, CovarianceLike
from keras_mvn.covariances.packing import pack_strict_lower
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.losses.base import UnitFreeLoss
from keras_mvn.ops._laws import Law, law_of
from keras_mvn.ops._pair_differences import checked_power, difference_variances, pair_differences

__all__ = ["VariogramScore"]

_TINY = 1e-12
"""Added to squared differences, in squared standard deviations of y, as |0|^p has no slope."""


@final
@keras.saving.register_keras_serializable(package="keras_mvn.losses")
class VariogramScore(UnitFreeLoss):
    """The variogram score `Σ_{i<j} (|yᵢ − yⱼ|^p − E |Xᵢ − Xⱼ|^p)²`, with X ~ N(μ, Σ).

    Targets are in units of their standard deviations. A proper score that penalizes wrong
    correlations more sharply than the energy score. It ignores errors that all targets have in
    common (a mean that is off by the same amount everywhere), so it is not strictly proper:
    training with it alone does not determine the mean. Report it together with another score.

    By default, it is exact: `E |Xᵢ − Xⱼ|^p` is a one-dimensional integral for each pair, evaluated
    at 64 nodes. With `layout="student_t"`, X is the Student's t, with the same number of nodes.

    Args:
        p: float, the power, in (0, 2]; 0.5 is the usual choice.
        covariance: as in `NegativeLogLikelihood`.
        target_scale: as in `UnitFreeLoss`; None takes the standard deviations of y from the head;
            1.0 compares targets in the units of y.
        samples: int ≥ 2, number of draws per row; None for the exact score.
        seed: int, seed of the draws, as in `EnergyScore`.
        **kwargs: the other arguments of `NegativeLogLikelihood`.

    Raises:
        ValueError: p is not in (0, 2]; y_pred does not come from a head and there is no
            `target_scale`; or as for `NegativeLogLikelihood`.

    Source: Scheuerer & Hamill, "Variogram-based proper scoring rules for probabilistic forecasts
    of multivariate quantities", Monthly Weather Review 143 (2015).

    >>> import numpy as np
    >>> loss = VariogramScore(p=1.0, covariance="diagonal", target_scale=1.0)
    >>> y_pred = np.array([[0.0, 0.0, 0.6, 0.8]])  # means, standard deviations
    >>> round(float(loss(np.array([[1.0, 1.0]]), y_pred)), 4)  # (0 − √(2/π))²
    0.6366

    """

    def __init__(
        self,
        p: float = 0.5,
        covariance: CovarianceLike = DEFAULT,
        target_scale: Any = None,
        samples: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(covariance, target_scale, **kwargs)
        self.p = checked_power(p)
        self.samples = (
            None if samples is None else whole(samples, "samples", "None or a number of draws", 2)
        )
        self.seed = seed

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the parameters as stored, with ν for a Student's t."""
        return self.reader.decode_elliptical(y_pred)

    def row_loss(self, targets: Targets, parameters: Parameters) -> Tensor:
        """Return the score of each row (...), over the pairs of observed targets."""
        mean, scale, shape_params = parameters
        scaled = Parameters(mean / targets.unit, scale / targets.unit, shape_params)
        observed = _power(pair_differences(targets.values / targets.unit), self.p)
        law = law_of(parameters)
        expected = (
            self._exact(law, scaled)
            if self.samples is None
            else self._sampled(law, scaled, self.samples)
        )
        gap = observed - expected
        if targets.observed is not None:
            both = targets.observed[..., :, None] * targets.observed[..., None, :]
            gap = gap * pack_strict_lower(both)
        return ops.sum(gap * gap, axis=-1)

    def _exact(self, law: Law, parameters: Parameters) -> Tensor:
        """Return E |Xᵢ − Xⱼ|^p of every pair i > j: (..., d(d − 1)/2)."""
        mean, scale, shape_params = parameters
        variance = difference_variances(self.reader.covariance, scale, shape_params)
        return law.mean_power(pair_differences(mean), variance, self.p)

    def _sampled(self, law: Law, parameters: Parameters, samples: int) -> Tensor:
        errors = law.draw(self.reader.covariance, parameters, samples, self.seed)
        return ops.mean(_power(pair_differences(parameters.mean + errors), self.p), axis=0)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "p": self.p, "samples": self.samples, "seed": self.seed}


def _power(x: Tensor, p: float) -> Tensor:
    return (x * x + _TINY) ** (0.5 * p)
