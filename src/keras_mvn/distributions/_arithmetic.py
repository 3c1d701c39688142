"""Sums, differences and linear functions of the targets of a distribution."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from keras_mvn._core.checks import finite
from keras_mvn._core.targets import positions, target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions._batch import Batch

__all__ = ["Arithmetic"]


class Arithmetic(Batch):
    """Distributions of linear functions of named targets."""

    @property
    @abc.abstractmethod
    def event_size(self) -> int:
        """d, the number of targets."""

    @property
    @abc.abstractmethod
    def target_names(self) -> tuple[str, ...] | None:
        """The d target names, or None."""

    @abc.abstractmethod
    def affine(
        self, matrix: Any, offset: Any = 0.0, target_names: Sequence[str] | None = None
    ) -> Self:
        """The joint distribution of m linear functions A y + b.

        Args:
            matrix: A, (m, d) or (..., m, d), or (d,) for one function, with linearly independent
                rows.
            offset: b, one number, (m,) or (..., m).
            target_names: m names of the functions.

        Raises:
            ValueError: shapes do not fit, values are not finite, or rows are dependent.

        """

    def sum(self, targets: Any = None, name: str = "sum") -> Self:
        """The distribution of the sum of all or some targets, as one target called `name`."""
        index = positions(
            slice(None) if targets is None else targets, self.target_names, self.event_size
        )
        weights = np.zeros(self.event_size)
        weights[index] = 1.0
        return self.affine(weights, target_names=[name])

    def difference(self, target: Any, other: Any) -> Self:
        """The distribution of `target − other`, as one target."""
        index = positions([target, other], self.target_names, self.event_size)
        weights = np.zeros(self.event_size)
        weights[index] = 1.0, -1.0
        names = target_names_of(self.target_names, self.event_size)
        return self.affine(weights, target_names=[f"{names[index[0]]} - {names[index[1]]}"])

    def __add__(self, constant: Any) -> Self:
        """The distribution of y + constant: one number, or one per target (..., d)."""
        return self._moved(1.0, constant)

    __radd__ = __add__

    def __sub__(self, constant: Any) -> Self:
        """The distribution of y − constant."""
        return self._moved(1.0, -_constant(constant))

    def __rsub__(self, constant: Any) -> Self:
        """The distribution of constant − y."""
        return self._moved(-1.0, constant)

    def __neg__(self) -> Self:
        """The distribution of −y."""
        return self._moved(-1.0, 0.0)

    def __mul__(self, factor: Any) -> Self:
        """The distribution of y · factor; factor is one number, or a positive one per target."""
        return self._moved(factor, 0.0)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Self:
        """The distribution of y / divisor, with the restrictions of `*`."""
        divisors = _constant(divisor)
        if not divisors.all():
            raise ValueError(f"The divisor {divisor!r} must not be 0.")
        return self._moved(1.0 / divisors, 0.0)

    __array_ufunc__ = None  # so that array + distribution calls __radd__

    def _moved(self, factor: Any, offset: Any) -> Self:
        factors, shift = _constant(factor), _constant(offset)
        if not ((factors > 0).all() or (factors.ndim == 0 and factors != 0)):
            raise ValueError(
                f"factor={factor!r} must be one number other than 0, or one positive number per "
                "target. For other linear functions, use `affine`."
            )
        return self._scaled(factors, shift)

    @abc.abstractmethod
    def _scaled(self, factors: Array, offset: Array) -> Self:
        """The distribution of factors · y + offset, on common batch axes."""


def _constant(value: Any) -> Array:
    """Check the other operand of + and *; a distribution would need a joint distribution."""
    if isinstance(value, Batch):
        raise TypeError(
            "Sums and products of two distributions need their joint covariance, which is not "
            "known. For targets of one distribution, use `sum`, `difference` or `affine`; to fuse "
            "two predictions, use `combine` or `covariance_intersection`."
        )
    return finite(value, "the constant")
