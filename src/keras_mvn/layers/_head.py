"""What every head offers: the layers whose output describes a distribution for each row."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras

from keras_mvn._core.types import Array
from keras_mvn.covariances import Covariance, TargetSummary

__all__ = ["Head"]


class Head(keras.layers.Layer, abc.ABC):
    """Base class of output layers that predict a distribution of all targets for each row.

    Attributes:
        event_size: number of targets d.
        covariance: the structure of every covariance in the output.
        degrees_of_freedom: None for normals; for a Student's t, what they depend on.

    """

    event_size: int
    covariance: Covariance
    degrees_of_freedom: Any
    target_names: Any

    @property
    @abc.abstractmethod
    def layout(self) -> str:
        """The layout of the output."""

    @property
    @abc.abstractmethod
    def resolution(self) -> Array:
        """The width δ of the grid of each target's values: (d,), found by `adapt`; 0 for none."""

    @property
    @abc.abstractmethod
    def mean_degrees_of_freedom(self) -> float:
        """ν, the harmonic mean of those of components; infinite for normals, NaN if by row."""

    @property
    def ignores_inputs(self) -> bool:
        """Whether all rows get the same prediction."""
        return False

    @abc.abstractmethod
    def constant_prediction(self) -> Array:
        """y_pred of a row of zeros, (1, size), of a built head."""

    @abc.abstractmethod
    def each_component(self) -> Sequence[Any]:
        """Return the `MultivariateNormalHead` of each component: of one distribution, itself."""

    @abc.abstractmethod
    def adapt(self, y: Any, residuals: Any = None, measured: Any = None) -> None:
        """Start at the moments of y, and store its units."""

    @abc.abstractmethod
    def summarize(self, y: Any) -> TargetSummary:
        """Return what `adapt` needs to know of y."""

    @abc.abstractmethod
    def distribution(self, y_pred: Any) -> Any:
        """Return predictions as a batch of distributions."""
