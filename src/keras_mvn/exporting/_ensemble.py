"""Export of several networks in one file: the mean and covariance of their mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, final

import keras

from keras_mvn._core.types import Tensor
from keras_mvn.calibration import Recalibration
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.exporting._moments import Mixed, Moments, mixture
from keras_mvn.exporting._outputs import OUTPUTS
from keras_mvn.exporting._serving import ModelServing, Serving
from keras_mvn.layouts import Parameters

__all__ = ["EnsembleServing", "serving_of_ensemble"]


@final
@dataclass(frozen=True)
class EnsembleServing(Serving):
    """Networks with the same inputs, whose predictions are mixed."""

    members: tuple[ModelServing, ...]
    calibration: Recalibration | None
    """Recalibration of the mixture's moments, or None."""
    weights: tuple[float, ...]
    """Of the members; their sum is 1."""

    @property
    def name(self) -> str:
        """Description with the number of models, for error messages."""
        return f"The ensemble of {len(self.models)} models"

    def of(self, inputs: Any) -> tuple[Tensor, ...]:
        """Compute the outputs from the moments of the mixture."""
        structure = self.prediction.reader.covariance
        components, weights = list[Parameters](), list[Any]()
        for member, weight in zip(self.members, self.weights, strict=True):
            read = Mixed.read(self.prediction.reader, member.y_pred(inputs))
            components += read.components
            weights += [weight * one for one in read.weights]
        moments = mixture(structure, components, weights)
        if self.calibration is not None:
            # Moments has the methods of MultivariateNormal that a recalibration calls.
            normal = self.calibration._apply_to_normal(cast(MultivariateNormal, moments))
            moments = cast(Moments, normal)
        computed = (OUTPUTS[name].of_moments for name in self.outputs)
        return tuple(of(moments) for of in computed if of is not None)


def serving_of_ensemble(
    members: list[ModelServing], calibration: Recalibration | None, weights: tuple[float, ...]
) -> EnsembleServing:
    """Return the serving of an ensemble.

    Raises:
        ValueError: the inputs or the heads of the models differ.

    """
    first = members[0]
    for i, member in enumerate(members):
        for what, mine, other in zip(
            ("inputs", "predictions"), _described(first), _described(member), strict=True
        ):
            if mine != other:
                raise ValueError(
                    f"Models of an ensemble must have the same inputs and heads: the {what} of "
                    f"model 0 are {mine}, those of model {i} are {other}."
                )
    models = tuple(member.models[0] for member in members)
    return EnsembleServing(
        models,
        first.signature,
        first.prediction,
        first.outputs,
        tuple(members),
        calibration,
        weights,
    )


def _described(member: ModelServing) -> tuple[Any, str]:
    """Describe inputs and prediction, without names, which Keras numbers."""
    prediction = member.prediction
    inputs = keras.tree.map_structure(
        lambda spec: (spec.shape, spec.dtype), member.signature.structure
    )
    return inputs, (
        f"{prediction.reader.covariance!r} for {prediction.event_size} targets "
        f"({prediction.reader.layout.name}, {prediction.dtype})"
    )
