"""Mean and covariance of a mixture of predictions, as a graph of sums and products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from keras_mvn._core.numeric import constant_like, namespace
from keras_mvn._core.types import Array, Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.covariances._solver_free import cholesky
from keras_mvn.covariances.packing import diagonal
from keras_mvn.layouts import Parameters, Reader

__all__ = ["Mixed", "Moments", "mixture"]


class Moments(NamedTuple):
    """Mean and covariance per row; d × d matrices are formed only on request.

    The methods are those of `MultivariateNormal` that recalibrations call.
    """

    mean: Tensor
    """(..., d), in the units of the targets."""
    variance: Callable[[], Tensor]
    """Function that returns the variances, (..., d)."""
    covariance: Callable[[], Tensor]
    """Function that returns the covariance matrices, (..., d, d)."""

    def rescale(self, factor: float) -> Self:
        """Return moments with Σ' = factor² Σ."""
        return self.rescale_targets(np.full(self.mean.shape[-1], factor))

    def rescale_targets(self, factors: Any) -> Self:
        """Return moments with Σ' = D Σ D, D = diag(factors)."""
        d = np.asarray(factors, "float64")
        return self._replace(
            variance=lambda: _times(self.variance(), d**2),
            covariance=lambda: _times(self.covariance(), d[:, None] * d),
        )

    def transform_errors(self, scale_tril: Any) -> Self:
        """Return moments with Σ' = L C Cᵀ Lᵀ, L the Cholesky factor of Σ."""

        def covariance() -> Tensor:
            sigma = self.covariance()
            factor = cholesky(sigma) @ constant_like(np.asarray(scale_tril, "float64"), sigma)
            return factor @ namespace(factor).swapaxes(factor, -1, -2)

        return self._replace(variance=lambda: diagonal(covariance()), covariance=covariance)


class Mixed(NamedTuple):
    """The components that a network predicts for each row."""

    structure: Covariance
    y_pred: Tensor
    weights: list[Any]
    """(...) of each component; 1 for the only one."""
    components: list[Parameters]

    @classmethod
    def read(cls, reader: Reader, y_pred: Tensor) -> Self:
        """Read them from the output of a network."""
        found = reader.components(y_pred)
        weights = [1.0 if weight is None else weight for weight, _ in found]
        return cls(reader.covariance, y_pred, weights, [one for _, one in found])

    def moments(self) -> Moments:
        """Return the moments of the mixture."""
        return mixture(self.structure, self.components, self.weights)


def _times(x: Tensor, constant: Array) -> Tensor:
    return x * constant_like(constant, x)


def mixture(
    structure: Covariance, members: Sequence[Parameters], weights: Sequence[Any]
) -> Moments:
    """Return the moments of a mixture.

    Σ* = Σ w_m Σ_m + Σ w_m (μ_m − μ*)(μ_m − μ*)ᵀ, as in
    `keras_mvn.distributions.mixture.Mixture`, but on tensors.

    Args:
        structure: the structure of all members.
        members: their parameters.
        weights: their weights: numbers, or tensors (...) of one for each row.

    """

    def average(terms: list[Tensor], event_axes: int) -> Tensor:
        weighted = [
            _on_events(weight, event_axes) * term
            for weight, term in zip(weights, terms, strict=True)
        ]
        return sum(weighted[1:], start=weighted[0])

    mean = average([member.mean for member in members], 1)

    def variance() -> Tensor:
        return average(
            [
                structure.variance(member.scale, member.shape_params) + (member.mean - mean) ** 2
                for member in members
            ],
            1,
        )

    def covariance() -> Tensor:
        spread = [member.mean - mean for member in members]
        return average(
            [
                structure.covariance(member.scale, member.shape_params)
                + r[..., :, None] * r[..., None, :]
                for member, r in zip(members, spread, strict=True)
            ],
            2,
        )

    return Moments(mean, variance, covariance)


def _on_events(weight: Any, axes: int) -> Any:
    """Return a weight that broadcasts over the axes of an event."""
    return weight if np.ndim(weight) == 0 else weight[(..., *(None,) * axes)]
