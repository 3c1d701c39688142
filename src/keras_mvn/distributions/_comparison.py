"""Comparison and fusion of normal distributions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from keras_mvn._core.checks import explained_shapes, finite
from keras_mvn._core.targets import positions
from keras_mvn._core.types import Array
from keras_mvn.distributions import _divergences, _fusion
from keras_mvn.distributions._elliptical import Elliptical
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.distributions.base import Distribution

__all__ = ["Comparison"]


class Comparison(Elliptical):
    """Divergences between distributions of the same targets, and their fusion."""

    def kl_divergence(
        self, other: Distribution, *, return_error: bool = False, samples: int = 4096, seed: Any = 0
    ) -> Any:
        """The divergence KL(self ‖ other) = E log(p/q) under self, in nats: (...).

        Between two normals, ½ (tr Σ_q⁻¹ Σ_p + ‖μ_p − μ_q‖²_q − d) + ½ log det Σ_q − ½ log det Σ_p,
        which costs O(d r²) between low-rank or diagonal distributions. For any other `other`, the
        mean over draws from self.

        Args:
            other: distributions of the same targets.
            return_error: whether to return (divergence, error), where the error is about two
                standard errors of the estimate, and 0 between two normals.
            samples: number of draws per distribution of an estimate.
            seed: seed of these draws.

        Raises:
            ValueError: targets differ, or batch shapes do not fit.

        >>> from keras_mvn import MultivariateNormal
        >>> p = MultivariateNormal([1.0], covariance=[[1.0]])
        >>> p.kl_divergence(MultivariateNormal([0.0], covariance=[[1.0]]))
        np.float64(0.5)

        """
        if not isinstance(other, Comparison):
            return super().kl_divergence(
                other, return_error=return_error, samples=samples, seed=seed
            )
        found = _divergences.kullback_leibler(*_aligned(self, other))
        return (found, np.zeros_like(found)) if return_error else found

    def wasserstein2(self, other: Self) -> Array:
        """The 2-Wasserstein distance, in the units of y: (...).

        √(‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½): how far probability mass
        has to be moved. Targets in different units are added as they are. Forms d × d matrices.

        Raises:
            ValueError: targets differ, or batch shapes do not fit.

        Source: Givens & Shortt, "A class of Wasserstein metrics for probability distributions",
        Michigan Mathematical Journal 31 (1984).

        """
        return _divergences.wasserstein2(*_aligned(self, other))

    def bhattacharyya(self, other: Self) -> Array:
        """The Bhattacharyya distance −log ∫ √(p q), symmetric, in nats: (...).

        ⅛ ‖μ₁ − μ₂‖² in the metric of Σ̄ = ½ (Σ₁ + Σ₂), plus ½ log det Σ̄, minus
        ¼ (log det Σ₁ + log det Σ₂).

        Raises:
            ValueError: targets differ, or batch shapes do not fit.

        Source: Kailath, "The divergence and Bhattacharyya distance measures in signal selection",
        IEEE Transactions on Communication Technology 15 (1967).

        """
        return _divergences.bhattacharyya(*_aligned(self, other))

    def mutual_information(self, targets: Any, others: Any) -> Array:
        """The mutual information between two groups of targets, in nats: (...).

        ½ log det Σ_aa + ½ log det Σ_bb − ½ log det of both groups; 0 if they are independent.

        Args:
            targets: one or several names or indices.
            others: one or several other names or indices.

        Raises:
            ValueError: a target is unknown or in both groups, or a group is empty.

        >>> from keras_mvn import MultivariateNormal
        >>> normal = MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.6], [0.6, 1.0]])
        >>> normal.mutual_information(0, 1).round(6)  # −½ log(1 − 0.6²)
        np.float64(0.223144)

        """
        a = positions(targets, self.target_names, self.event_size)
        b = positions(others, self.target_names, self.event_size)
        if set(a) & set(b):
            raise ValueError(f"targets={targets!r} and others={others!r} have a target in common.")
        both = np.concatenate([a, b])
        return sum(self._gaussian.marginal(i).half_log_det() for i in (a, b)) - (
            self._gaussian.marginal(both).half_log_det()
        )

    def combine(self, other: Self) -> Self:
        """The fusion of two predictions with *independent* errors, the product of their densities.

        Σ⁻¹ = Σ₁⁻¹ + Σ₂⁻¹, with each mean weighted by its precision. Predictions that share data or
        a model are not independent: their common evidence would be counted twice, and the result
        be overconfident. For these, use `covariance_intersection`.

        Raises:
            ValueError: targets differ, or batch shapes do not fit.

        >>> from keras_mvn import MultivariateNormal
        >>> p = MultivariateNormal([0.0], covariance=[[1.0]])
        >>> p.combine(MultivariateNormal([4.0], covariance=[[3.0]])).mean
        array([1.])

        """
        return self._like(_fusion.product(*_aligned(self, other)), self._names_with(other))

    def covariance_intersection(self, other: Self, weight: Any = None) -> Self:
        """The safe fusion of two predictions whose errors are correlated in an unknown way.

        Σ⁻¹ = ω Σ₁⁻¹ + (1 − ω) Σ₂⁻¹; Σ is never too small, whatever the correlation.

        Args:
            other: the second prediction.
            weight: ω in [0, 1], one number or (...); None minimizes det Σ in each row.

        Raises:
            ValueError: targets differ, batch shapes do not fit, or a weight is outside [0, 1].

        Source: Julier & Uhlmann, "A non-divergent estimation algorithm in the presence of unknown
        correlations", American Control Conference 1997.

        """
        weights = None if weight is None else finite(weight, "weight")
        if weights is not None and not ((weights >= 0) & (weights <= 1)).all():
            raise ValueError(f"weight={weight!r} must be between 0 and 1.")
        pair = _aligned(self, other)
        if weights is not None:
            with explained_shapes("weight", weights.shape, pair[0].batch_shape):
                weights = np.broadcast_to(weights, pair[0].batch_shape)
        return self._like(_fusion.covariance_intersection(*pair, weights), self._names_with(other))

    def _names_with(self, other: Self) -> tuple[str, ...] | None:
        return other.target_names if self.target_names is None else self.target_names


def _aligned(one: Elliptical, other: Any) -> tuple[Gaussian, Gaussian]:
    """Broadcast two normals of the same targets to common batch axes.

    Raises:
        TypeError: `other` is not a MultivariateNormal.
        ValueError: targets differ, or batch shapes do not fit.

    """
    if not isinstance(other, Comparison):
        raise TypeError(
            f"Expected another MultivariateNormal, received {type(other).__name__}."
            + (" Its `moments()` method returns one." if hasattr(other, "moments") else "")
        )
    one.check_same_targets(other)
    batch = np.broadcast_shapes(one.batch_shape, other.batch_shape)
    return one._gaussian.on_batch(batch), other._gaussian.on_batch(batch)
