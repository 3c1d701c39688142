"""Base classes of calibrations, which are fitted on held-out rows and applied to any others."""

from __future__ import annotations

import abc
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, TypeVar, final, overload

import keras
import numpy as np

from keras_mvn.distributions.base import Distribution, require_distribution

__all__ = ["Calibration", "Recalibration", "register"]

DistributionT = TypeVar("DistributionT", bound=Distribution)


def register(cls: Any) -> Any:
    """Register a calibration class with `keras.saving`."""
    return keras.saving.register_keras_serializable(package="keras_mvn.calibration")(cls)


@dataclass(frozen=True)
class Calibration:
    """Base class of calibrations: frozen dataclasses with fields fitted on a calibration set."""

    @final
    def get_config(self) -> dict[str, Any]:
        """Return the fields as lists and numbers."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @final
    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the calibration with this configuration."""
        return cls(**config)


@dataclass(frozen=True)
class Recalibration(Calibration, abc.ABC):
    """Base class of maps that keep predicted means and correct the covariances.

    A subclass defines how it is fitted, whether it can use rows with missing values, and how it is
    applied to a distribution and to a model.
    """

    takes_gaps: ClassVar[bool] = False
    """Whether `fit` uses rows in which only some targets were observed (missing="marginalize");
    if not, the estimator fits it to the complete rows."""

    takes_mixtures: ClassVar[bool] = False
    """Whether it corrects mixtures, by what it does to all of their components."""

    needs_every_target: ClassVar[bool] = False
    """Whether `fit` fails if no row has a value of some target; the estimator then warns and skips
    the recalibration."""

    @classmethod
    @abc.abstractmethod
    def fit(cls, normal: Distribution, y: Any, missing: str = "raise") -> Self:
        """Fit the recalibration to predictions for rows that were not used for training.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), observed values in the original units, one row per distribution.
            missing: "marginalize" treats NaN in y as missing; by default NaN is an error, and
                always if `takes_gaps` is False.

        Raises:
            ValueError: there are no rows, shapes do not match, or values are not finite.

        """

    @overload
    def apply(self, predictions: DistributionT) -> DistributionT: ...

    @overload
    def apply(self, predictions: keras.Model) -> keras.Model: ...

    @final
    def apply(self, predictions: Any) -> Any:
        """Return calibrated predictions, or a model that makes them.

        Args:
            predictions: a `MultivariateNormal` or `MultivariateStudentT` (or a `Mixture` of these,
                if it `takes_mixtures`); or a Keras model with one head, which is left unchanged: a
                new model with the same weights is returned, uncompiled, that can be saved, exported
                and served like any other.

        Raises:
            TypeError: predictions is neither of these.
            ValueError: the number of targets differs from that in `fit`, or the model does not
                have exactly one head.

        """
        if isinstance(predictions, keras.Model):
            return self._apply_to_model(predictions)
        mixtures = self.takes_mixtures and require_distribution(predictions).parts() is not None
        if not mixtures:
            require_distribution(predictions).require_elliptical(f"{type(self).__name__}.apply")
        return self._apply_to_normal(predictions)

    @abc.abstractmethod
    def _apply_to_normal(self, normal: Any) -> Any: ...

    @abc.abstractmethod
    def _apply_to_model(self, model: keras.Model) -> keras.Model: ...


def _plain(value: Any) -> Any:
    """Convert tuples and arrays to lists, which JSON can store."""
    return np.asarray(value).tolist() if isinstance(value, tuple | np.ndarray) else value
