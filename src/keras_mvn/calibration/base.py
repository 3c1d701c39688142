"""The contract of a recalibration: fitted on held-out rows, applied to any others."""

from __future__ import annotations

import abc
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, final, overload

import keras
import numpy as np

from keras_mvn.distributions import MultivariateNormal
from keras_mvn.distributions._require import require_normal

__all__ = ["Calibration", "Recalibration", "register"]


def register(cls: Any) -> Any:
    """Make a calibration known to `keras.saving`."""
    return keras.saving.register_keras_serializable(package="keras_mvn.calibration")(cls)


@dataclass(frozen=True)
class Calibration:
    """What was learnt on a calibration set: a few numbers, the fields of a frozen dataclass."""

    @final
    def get_config(self) -> dict[str, Any]:
        """The fields, as lists and numbers."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @final
    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The calibration of this configuration."""
        return cls(**config)


@dataclass(frozen=True)
class Recalibration(Calibration, abc.ABC):
    """The same means with other covariances, so that distances have the sizes they claim.

    A subclass says how it is fitted, whether to rows with gaps too, and what becomes of a
    distribution and of a model.
    """

    takes_gaps: ClassVar[bool] = False
    """Whether `fit` uses rows of which only some targets were observed (missing="marginalize");
    where not, the estimator fits it to the complete rows."""

    needs_every_target: ClassVar[bool] = False
    """Whether `fit` fails where no row has a value of some target; the estimator then warns and
    leaves the recalibration out."""

    @classmethod
    @abc.abstractmethod
    def fit(cls, normal: MultivariateNormal, y: Any, missing: str = "raise") -> Self:
        """The recalibration of predictions for rows that were not trained on.

        Args:
            normal: predictions for the calibration rows.
            y: (..., d), what was observed, in the units of y: one row for each distribution.
            missing: "marginalize" reads NaN in y as "not observed"; by default it is an error, and
                always where `takes_gaps` is false.

        Raises:
            ValueError: no rows, shapes that don't fit, or values that are not finite.

        """

    @overload
    def apply(self, predictions: MultivariateNormal) -> MultivariateNormal: ...

    @overload
    def apply(self, predictions: keras.Model) -> keras.Model: ...

    @final
    def apply(self, predictions: Any) -> Any:
        """The calibrated predictions, or a model that makes them.

        Args:
            predictions: a `MultivariateNormal`; or a Keras model with one `MultivariateNormalHead`,
                which is left as it is: a new model with the same weights is returned, not compiled,
                that can be saved, exported and served like any other.

        Raises:
            TypeError: something else.
            ValueError: another number of targets than was fitted, or a model in which there is not
                exactly one head.

        """
        if isinstance(predictions, keras.Model):
            return self._apply_to_model(predictions)
        require_normal(predictions)
        return self._apply_to_normal(predictions)

    @abc.abstractmethod
    def _apply_to_normal(self, normal: MultivariateNormal) -> MultivariateNormal: ...

    @abc.abstractmethod
    def _apply_to_model(self, model: keras.Model) -> keras.Model: ...


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    return np.asarray(value).tolist() if isinstance(value, tuple | np.ndarray) else value
