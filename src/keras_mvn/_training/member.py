"""What predicts a table's rows: a network, or one over the predictions of another regressor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn._training.prediction import delivered, predict
from keras_mvn.distributions import Distribution
from keras_mvn.layers import SoftClip
from keras_mvn.layers._find_heads import heads
from keras_mvn.layers._head import Head
from keras_mvn.layers.soft_clip import limits_of

__all__ = [
    "Center",
    "Centered",
    "Member",
    "Network",
    "beside",
    "members_of",
    "predict_distribution",
]


class Center(Protocol):
    """Another model of the expected targets."""

    @property
    def fits(self) -> Sequence[Any]:
        """The models it averages; itself, if it is one."""
        ...

    def predict(self, x: Any) -> Array:
        """Return the expected targets for inputs as they are in the table: (n, d)."""
        ...


class Member(ABC):
    """One of the models whose mixture predicts.

    Args:
        network: its network.
        weight: its weight in the mixture, relative to those of the others.

    """

    def __init__(self, network: Any, weight: float = 1.0) -> None:
        self.network, self.weight = network, weight

    @property
    def head(self) -> Head:
        """The head of its network."""
        return heads(self.network)[-1]

    @property
    def center(self) -> Center | None:
        """What predicts the expected targets, which its network corrects; None for nothing."""
        return None

    @property
    def limits(self) -> SoftClip | None:
        """The range of the table's inputs in training; None if its network does not know it."""
        return limits_of(self.network)

    @abstractmethod
    def y_pred(self, x: Any, centers: Array | None) -> Array:
        """Return what its network predicts for rows: of y, or of y without the centers.

        Args:
            x: inputs as they are in the table, (n, features).
            centers: the predictions of `center`, (n, d), or None if there is none.

        """


@final
class Network(Member):
    """A network of the table's inputs."""

    def y_pred(self, x: Any, centers: Array | None) -> Array:
        """Return what the network predicts."""
        return predict(self.network, x)


@final
class Centered(Member):
    """A network over another model: it predicts y − m(x) from x and m(x).

    Args:
        network: the network, of features + d inputs.
        center: m.
        weight: its weight in the mixture, relative to those of the others.

    """

    def __init__(self, network: Any, center: Center, weight: float = 1.0) -> None:
        super().__init__(network, weight)
        self._center = center

    @property
    def center(self) -> Center:
        """What predicts m(x)."""
        return self._center

    @property
    def limits(self) -> SoftClip | None:
        """The range of the table's inputs in training."""
        found = limits_of(self.network)
        if found is None:
            return None
        features = len(found.lower) - self.head.event_size
        return SoftClip(found.lower[:features], found.upper[:features], found.margin[:features])

    def y_pred(self, x: Any, centers: Array | None) -> Array:
        """Return what the network predicts of the errors of m."""
        assert centers is not None
        return predict(self.network, beside(x, centers))


def beside(x: Any, centers: Array) -> Array:
    """Return inputs with the predictions of another model beside them: (n, features + d)."""
    x = np.asarray(x)
    return np.concatenate([x, centers.astype(x.dtype, copy=False)], axis=1)


def members_of(
    networks: Sequence[Any],
    centers: Sequence[Center | None] = (),
    weights: Sequence[float] = (),
) -> list[Member]:
    """Return the members.

    Args:
        networks: the networks.
        centers: what network i is over, at i modulo their number; None for nothing.
        weights: of each network; equal ones if there are none.

    """
    given = [float(one) for one in weights] or [1.0] * len(networks)
    found: list[Member] = []
    for i, (network, weight) in enumerate(zip(networks, given, strict=True)):
        center = centers[i % len(centers)] if centers else None
        if center is None:
            found.append(Network(network, weight))
        else:
            found.append(Centered(network, center, weight))
    return found


def predict_distribution(members: Sequence[Member], x: Any) -> Distribution:
    """Return one distribution per row: what is delivered of the members' mixture.

    If they are over one center and predict no errors of it, the mean is that of the center, to the
    last bit.
    """
    common = members[0].center
    predictions: dict[int, Array] = {}  # each center is asked once
    for center in (member.center for member in members):
        if center is not None and id(center) not in predictions:
            predictions[id(center)] = center.predict(x)
    answers = []
    for member in members:
        centers = predictions.get(id(member.center))
        found = member.head.distribution(member.y_pred(x, centers))
        if member.center is not common:
            found = found + (_or_zero(centers) - _or_zero(predictions.get(id(common))))
        answers.append(found)
    weights = np.array([member.weight for member in members])
    answer = delivered(answers, weights / weights.sum())
    return answer if common is None else answer + predictions[id(common)]


def _or_zero(centers: Array | None) -> Array | float:
    return 0.0 if centers is None else centers
