"""What distinguishes a normal from a Student's t with the same location and scale matrix Σ.

Both are X = μ + √V L z, with z standard normal, Σ = L Lᵀ, and V independent of z: 1 for a normal;
for a Student's t, 1/V is a gamma variable with shape and rate ν/2. These are the questions about V
on tensors; `keras_mvn.distributions` asks more of them, in float64 NumPy.
"""

from __future__ import annotations

import abc
import math
from typing import Any, final

import numpy as np
from keras import ops

from keras_mvn._core.chi_square import chi_square_quantile
from keras_mvn._core.log_gamma import digamma_difference, scaled_log_gamma_ratio
from keras_mvn._core.region_levels import chi_square_level, student_level
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.kernels import Elliptical, elliptical
from keras_mvn.layouts import Parameters
from keras_mvn.layouts._y_true import Targets
from keras_mvn.ops._density import from_elliptical
from keras_mvn.ops._draws import draw_errors, draw_stretches
from keras_mvn.ops._pair_differences import mean_power
from keras_mvn.ops._student_norms import student_mean_power

__all__ = ["Law", "law_of", "negative_log_density"]


class Law(abc.ABC):
    """The distribution of V in each row (...)."""

    @abc.abstractmethod
    def negative_log_density(self, found: Elliptical, targets: Targets) -> Tensor:
        """Return −log p of the observed targets of each row (...), in nats."""

    @abc.abstractmethod
    def entropy(self, half_log_det: Tensor, event_size: int) -> Tensor:
        """Return the entropy (...), in nats, from ½ log det Σ (...)."""

    @abc.abstractmethod
    def level(self, squared: Tensor, targets: Targets) -> Tensor:
        """Return the probability of a squared distance not larger than this one: (...)."""

    @abc.abstractmethod
    def inside(self, squared: Tensor, targets: Targets, level: float) -> Tensor:
        """Return whether a squared distance is inside the ellipsoid of this probability: (...)."""

    @abc.abstractmethod
    def mean_power(self, gap: Tensor, variance: Tensor, p: float) -> Tensor:
        """Return E |X|^p, elementwise, for errors with scale √variance around `gap`: (..., n)."""

    @abc.abstractmethod
    def draw(
        self, structure: Covariance, parameters: Parameters, samples: int, seed: Any
    ) -> Tensor:
        """Return draws of the errors √V L z: (samples, ..., d)."""


@final
class _Normal(Law):
    """V = 1."""

    def negative_log_density(self, found: Elliptical, targets: Targets) -> Tensor:
        return from_elliptical(found, targets)

    def entropy(self, half_log_det: Tensor, event_size: int) -> Tensor:
        return half_log_det + 0.5 * event_size * (1.0 + math.log(2.0 * math.pi))

    def level(self, squared: Tensor, targets: Targets) -> Tensor:
        return chi_square_level(squared, targets.observed_count())

    def inside(self, squared: Tensor, targets: Targets, level: float) -> Tensor:
        """By a table of the quantiles for every number of observed targets."""
        d = targets.values.shape[-1]
        if targets.observed is None:
            return squared <= chi_square_quantile(level, d)
        quantiles = [0.0, *(chi_square_quantile(level, count) for count in range(1, d + 1))]
        table = ops.cast(np.asarray(quantiles), targets.observed.dtype)
        return squared <= ops.take(table, ops.cast(targets.observed_count(), "int32"))

    def mean_power(self, gap: Tensor, variance: Tensor, p: float) -> Tensor:
        return mean_power(gap, variance, p)

    def draw(
        self, structure: Covariance, parameters: Parameters, samples: int, seed: Any
    ) -> Tensor:
        return draw_errors(structure, parameters.scale, parameters.shape_params, samples, seed)


@final
class _StudentT(Law):
    """V = 1/G, G a gamma variable with shape and rate ν/2."""

    def __init__(self, nu: Tensor) -> None:
        self.nu = nu

    def negative_log_density(self, found: Elliptical, targets: Targets) -> Tensor:
        half = 0.5 * targets.observed_count() * ops.ones_like(self.nu)
        growth = ops.log1p(found.squared_mahalanobis / self.nu)
        return self._log_normalizer(half) + found.half_log_det + (0.5 * self.nu + half) * growth

    def entropy(self, half_log_det: Tensor, event_size: int) -> Tensor:
        half = 0.5 * event_size * ops.ones_like(self.nu)
        growth = digamma_difference(0.5 * self.nu, half)
        return self._log_normalizer(half) + half_log_det + (0.5 * self.nu + half) * growth

    def level(self, squared: Tensor, targets: Targets) -> Tensor:
        return student_level(squared, targets.observed_count(), self.nu)

    def inside(self, squared: Tensor, targets: Targets, level: float) -> Tensor:
        return self.level(squared, targets) <= level

    def mean_power(self, gap: Tensor, variance: Tensor, p: float) -> Tensor:
        return student_mean_power(gap, variance, self.nu[..., None], p)

    def draw(
        self, structure: Covariance, parameters: Parameters, samples: int, seed: Any
    ) -> Tensor:
        _, scale, shape_params = parameters
        errors = draw_errors(structure, scale, shape_params, samples, seed)
        return draw_stretches(self.nu, samples, seed)[..., None] * errors

    def _log_normalizer(self, half: Tensor) -> Tensor:
        """Return ½d log(νπ) − log Γ(½(ν + d)) + log Γ(½ν), for `half` = ½d."""
        return half * math.log(2.0 * math.pi) - scaled_log_gamma_ratio(0.5 * self.nu, half)


_NORMAL = _Normal()


def law_of(parameters: Parameters) -> Law:
    """Return the law of the rows that these parameters describe."""
    nu = parameters.degrees_of_freedom
    return _NORMAL if nu is None else _StudentT(nu)


def negative_log_density(
    covariance: Covariance, targets: Targets, parameters: Parameters, fused: bool | None = None
) -> Tensor:
    """Return −log p of the observed targets of each row (...), in nats, for mixtures, too."""
    terms = [
        law_of(one).negative_log_density(elliptical(covariance, targets, one, fused=fused), targets)
        for one in parameters.components
    ]
    if parameters.logits is None:
        return terms[0]
    logits = parameters.logits
    joint = ops.logsumexp(logits - ops.stack(terms, axis=-1), axis=-1)
    return ops.logsumexp(logits, axis=-1) - joint
