"""What distinguishes elliptical distributions with the same location and scale matrix.

Every elliptical answer is X = μ + √V L z, with z standard normal, Σ = L Lᵀ its scale matrix, and a
positive random V that is independent of z: V = 1 for a normal, an inverse gamma variable for
Student's t. All that isn't in μ and Σ is a question about V, or about ‖X − μ‖² in the metric of Σ.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["BOUND", "NODES", "RadialLaw"]

BOUND = 0.99
"""Level of the distance beyond which rows count no more in robust estimates of Σ."""

NODES = 32
"""Nodes of the quadrature over V: relative errors below 1e-8 for averages that exist."""


class RadialLaw(abc.ABC):
    """The distribution of V for a batch of distributions; (...) are its batch axes."""

    @property
    @abc.abstractmethod
    def degrees_of_freedom(self) -> Array:
        """ν of a Student's t: () or (...); infinite for a normal."""

    # --- batch axes ------------------------------------------------------------------------------

    @abc.abstractmethod
    def take(self, index: Any) -> Self:
        """Index the batch axes."""

    @abc.abstractmethod
    def on_batch(self, batch: tuple[int, ...]) -> Self:
        """Broadcast to larger batch axes."""

    @abc.abstractmethod
    def flat(self) -> Self:
        """Reshape to one batch axis."""

    @abc.abstractmethod
    def joined(self, others: Sequence[Self]) -> Self:
        """Join this batch and others along the first axis."""

    # --- moments ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def require_mean(self) -> None:
        """Check that the mean exists.

        Raises:
            ValueError: it does not.

        """

    @abc.abstractmethod
    def variance_factor(self) -> Array:
        """E V, the covariance divided by the scale matrix: (...).

        Raises:
            ValueError: there is no covariance.

        """

    @abc.abstractmethod
    def spread_factor(self) -> Array:
        """E √(V + V′), with V′ an independent copy of V: (...).

        Raises:
            ValueError: the mean does not exist.

        """

    @abc.abstractmethod
    def power_factor(self, power: float) -> Array:
        """E V^(power/2): (...).

        Raises:
            ValueError: it does not exist.

        """

    @abc.abstractmethod
    def log_laplace(self, determinant: Array, distance: Array, power: float) -> Array:
        """log φ(τ) of E ‖m + √V Z‖^power = E V^(power/2) ∫ (1 − φ(τ)) dμ(τ): (..., nodes).

        For V = 1, φ = e^(−A − B) is the Laplace transform of the squared length, and μ as in
        `_core/norm_quadrature`; the mean over V changes B alone, in closed form.

        Args:
            determinant: A = ½ log det(I + 2τΣ), (..., nodes).
            distance: B = τ mᵀ (I + 2τΣ)⁻¹ m, (..., nodes).
            power: between 0 and 2.

        """

    @abc.abstractmethod
    def nodes(self, power: float = 1.0, count: int = NODES) -> tuple[Array, Array]:
        """Values of V, and their weights, for averages of functions of V: (..., nodes) each.

        Args:
            power: the functions grow at most like V^(power/2).
            count: number of nodes, where one is not enough.

        Raises:
            ValueError: such averages do not exist.

        """

    # --- density and probabilities ---------------------------------------------------------------

    @abc.abstractmethod
    def log_density(self, squared: Array, count: Any) -> Array:
        """The log-density at a squared distance, for Σ = I and `count` targets: (...)."""

    @abc.abstractmethod
    def pull(self, squared: Array, count: Any) -> Array | float:
        """−2 ∂ log density/∂q at the squared distance q: the weight of a row in estimates of Σ."""

    @abc.abstractmethod
    def bounded_pull(self, squared: Array, count: Any) -> Array:
        """The pull of a row that counts no more than one at the distance that 1 % exceed: (...).

        min(pull(q) q, c)/(q β), with c = pull(q₉₉) q₉₉ and β such that estimates of Σ are right if
        the law is: a Huber-type M-estimator (Maronna 1976). No row counts more than c/β.
        """

    @abc.abstractmethod
    def entropy(self, count: int) -> Array:
        """The entropy for Σ = I and `count` targets, in nats: (...)."""

    @abc.abstractmethod
    def margin_cdf(self, x: Array) -> Array:
        """The distribution function of a single target at x scales from its center: (..., d)."""

    @abc.abstractmethod
    def margin_quantile(self, p: Array) -> Array:
        """The quantile of a single target, in scales from its center, for p (..., 1)."""

    @abc.abstractmethod
    def margin_reach(self, outside: float) -> Array | float:
        """The x with P(|X − μ| > x scales) = outside, for a single target: (...), or one number."""

    @abc.abstractmethod
    def squared_radius(self, level: float, count: int) -> Array | float:
        """The squared distance within which all `count` targets are with probability `level`."""

    @abc.abstractmethod
    def level(self, squared: Array, count: Any) -> Array:
        """The probability of a squared distance not larger than this, for `count` targets."""

    @abc.abstractmethod
    def chi_square(self, squared: Array, count: Any) -> Array:
        """The χ² value of the same level: `squared` itself for a normal."""

    @abc.abstractmethod
    def standard_normal(self, x: Array) -> Array:
        """The standard normal value of the same level, of single targets (..., d) in scales."""

    # --- draws and conditioning ------------------------------------------------------------------

    @abc.abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Array | float:
        """Draws of √V: (count, ...), or 1."""

    @abc.abstractmethod
    def scale_at(self, p: Array) -> Array | float:
        """The quantiles of √V at probabilities p, (n,): (n, ...), or 1."""

    @abc.abstractmethod
    def given(self, squared: Array, count: int) -> tuple[Self, Array | float]:
        """What is known of V after a measurement of some targets.

        Args:
            squared: squared distance of the measured targets from their center: (...).
            count: number of measured targets.

        Returns:
            The law of the other targets, and the factor of their scales: (...), or 1.

        """

    @abc.abstractmethod
    def averaged(self, others: Sequence[Self], weights: Array) -> Self:
        """One law in place of several, this one first, with weights (k, ...)."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What `repr` says of the law, such as ", degrees_of_freedom=4.0"."""
