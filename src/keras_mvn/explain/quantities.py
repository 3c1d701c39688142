"""What can be explained of predicted distributions: one number for each row."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.targets import position
from keras_mvn._core.types import Array
from keras_mvn.distributions import Distribution

__all__ = [
    "AleatoricStddev",
    "Correlation",
    "EpistemicStddev",
    "LogVolume",
    "Mean",
    "Quantity",
    "Stddev",
]


class Quantity(abc.ABC):
    """A number that a predicted distribution has for each row."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name, for tables, such as "stddev of a"."""

    @abc.abstractmethod
    def of(self, answer: Distribution) -> Array:
        """Return the number of each row, (n,), for predictions of batch shape (n,)."""


@dataclass(frozen=True)
class _OfTarget(Quantity):
    """A quantity of one target.

    Args:
        target: its name or index.

    """

    target: Any

    @property
    def name(self) -> str:
        """The name, for tables."""
        return f"{self._words} of {self.target}"

    @property
    @abc.abstractmethod
    def _words(self) -> str: ...

    @final
    def of(self, answer: Distribution) -> Array:
        """Return the number of each row: (n,)."""
        at = position(self.target, answer.target_names, answer.event_size)
        return np.asarray(self._of_all(answer)[..., at])

    @abc.abstractmethod
    def _of_all(self, answer: Any) -> Array:
        """Return the numbers of all targets: (n, d)."""


@final
@dataclass(frozen=True)
class Mean(_OfTarget):
    """The mean of a target, in its unit."""

    _words = "mean"

    def _of_all(self, answer: Any) -> Array:
        return np.asarray(answer.mean)


@final
@dataclass(frozen=True)
class Stddev(_OfTarget):
    """The standard deviation of a target, in its unit."""

    _words = "stddev"

    def _of_all(self, answer: Any) -> Array:
        return np.asarray(answer.stddev)


@final
@dataclass(frozen=True)
class AleatoricStddev(_OfTarget):
    """The standard deviation of the noise that the members of an ensemble expect, in its unit.

    The predictions must be a `Mixture`, as a `DeepEnsemble` makes.
    """

    _words = "aleatoric stddev"

    def _of_all(self, answer: Any) -> Array:
        return np.asarray(_mixture(answer).aleatoric_stddev)


@final
@dataclass(frozen=True)
class EpistemicStddev(_OfTarget):
    """The standard deviation of the means of the members of an ensemble, in the target's unit.

    The predictions must be a `Mixture`, as a `DeepEnsemble` makes.
    """

    _words = "epistemic stddev"

    def _of_all(self, answer: Any) -> Array:
        return np.asarray(_mixture(answer).epistemic_stddev)


@final
@dataclass(frozen=True)
class Correlation(Quantity):
    """The correlation of two targets.

    Args:
        target: name or index of one.
        other: name or index of the other.

    """

    target: Any
    other: Any

    @property
    def name(self) -> str:
        """The name, for tables."""
        return f"correlation of {self.target} and {self.other}"

    def of(self, answer: Distribution) -> Array:
        """Return the correlation of each row: (n,)."""
        i, j = (
            position(one, answer.target_names, answer.event_size)
            for one in (self.target, self.other)
        )
        return np.asarray(answer.correlation[..., i, j])


@final
@dataclass(frozen=True)
class LogVolume(Quantity):
    """½ log det of the covariance: the log-volume of joint regions, up to a constant, in nats."""

    @property
    def name(self) -> str:
        """The name, for tables."""
        return "log-volume"

    def of(self, answer: Distribution) -> Array:
        """Return ½ log det of the covariance of each row: (n,)."""
        return np.asarray(answer.moments().half_log_det)


def _mixture(answer: Any) -> Any:
    if not hasattr(answer, "aleatoric_stddev"):
        raise TypeError(
            f"{type(answer).__name__} does not know which part of its spread is the disagreement "
            "of the members; pass the prediction of a DeepEnsemble, such as that of `ensemble_`."
        )
    return answer
