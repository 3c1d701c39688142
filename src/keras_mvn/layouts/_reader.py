"""The reader of y_pred: a structure, a layout and `from_raw`, joined."""

from __future__ import annotations

from typing import Any, final

import keras

from keras_mvn import covariances
from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import CovarianceLike
from keras_mvn.layouts import _tag
from keras_mvn.layouts._layouts import Parameters, StudentTParameters
from keras_mvn.layouts._lookup import get
from keras_mvn.layouts._mixture import MixtureParameters

__all__ = ["Reader"]


@final
class Reader:
    """A decoder of y_pred: its structure, its layout, and whether it is unconstrained.

    Args:
        covariance: a structure or its name.
        from_raw: bool, whether y_pred holds unconstrained numbers (the output of an ordinary
            Dense layer), to which the structure's link is applied; like Keras' `from_logits`.
        layout: "packed", "student_t", "stacked" or "mean_log_variance".

    Raises:
        ValueError: a name is unknown, or the layout implies a different structure.

    """

    def __init__(self, covariance: CovarianceLike, from_raw: bool, layout: str) -> None:
        chosen, structure = get(layout), covariances.get(covariance)
        if chosen.covariance is not None:
            implied = covariances.get(chosen.covariance)
            # An explicitly given default is indistinguishable from an omitted argument: override.
            if structure not in (implied, covariances.get(covariances.DEFAULT)):
                raise ValueError(
                    f"layout={layout!r} implies covariance={implied.name!r}; received "
                    f"covariance={structure.name!r}. Leave covariance out."
                )
            structure = implied
        self.covariance = structure
        self.from_raw = bool(from_raw)
        self.layout = chosen

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments in serializable form."""
        return {
            "covariance": keras.saving.serialize_keras_object(self.covariance),
            "from_raw": self.from_raw,
            "layout": self.layout.name,
        }

    def decode(self, y_pred: Tensor) -> Parameters:
        """Return the mean, scale and shape parameters of the normal distributions in y_pred.

        For a Student's t, these are the normals of the same covariance.

        Raises:
            ValueError: the shape of y_pred fits no number of targets.

        """
        parameters, nu = self.decode_student_t(y_pred)
        if nu is None:
            return parameters
        mean, scale, shape_params = parameters
        ratio = namespace(nu).sqrt(nu / (nu - 2.0))  # the covariance of Student's t
        return Parameters(mean, scale * ratio[..., None], shape_params)

    def decode_elliptical(self, y_pred: Tensor) -> Parameters:
        """Return the parameters as stored in y_pred: for a Student's t, `StudentTParameters`.

        Raises:
            ValueError: the shape of y_pred fits no number of targets.

        """
        parameters, nu = self.decode_student_t(y_pred)
        if nu is None:
            return parameters
        return StudentTParameters.of(parameters, nu, None if self.from_raw else y_pred)

    def decode_any(self, y_pred: Tensor) -> Parameters:
        """Return the parameters as stored in y_pred: for a mixture, `MixtureParameters`.

        Raises:
            ValueError: the shape of y_pred fits no number of targets.

        """
        logits, blocks = self.layout.split(y_pred)
        if logits is None or self.layout.component is None:
            return self.decode_elliptical(y_pred)
        self._event_size(y_pred)
        of_component = Reader(self.covariance, self.from_raw, self.layout.component.name)
        components = tuple(of_component.decode_elliptical(block) for block in blocks)
        means = keras.ops.stack([one.mean for one in components], axis=-1)
        total = keras.ops.logsumexp(logits, axis=-1, keepdims=True)
        weights = keras.ops.exp(logits - total)
        mean = keras.ops.sum(weights[..., None, :] * means, axis=-1)
        return MixtureParameters.of(mean, components, logits)

    def components(self, y_pred: Tensor) -> list[tuple[Tensor | None, Parameters]]:
        """Return the weight (...) of each component and what `decode` returns for it.

        A single distribution has no weight, None.

        Raises:
            ValueError: the shape of y_pred fits no number of targets.

        """
        logits, blocks = self.layout.split(y_pred)
        if logits is None or self.layout.component is None:
            return [(None, self.decode(y_pred))]
        self._event_size(y_pred)
        own = Reader(self.covariance, self.from_raw, self.layout.component.name)
        weights = keras.ops.softmax(logits, axis=-1)
        return [(weights[..., i], own.decode(block)) for i, block in enumerate(blocks)]

    def decode_student_t(self, y_pred: Tensor) -> tuple[Parameters, Tensor | None]:
        """Return location, scale and shape parameters as stored in y_pred, and ν (...) or None.

        Raises:
            ValueError: the shape of y_pred fits no number of targets.

        """
        d = self._event_size(y_pred)
        parameters = self.layout.decode(y_pred, d, self.covariance, self.from_raw)
        return parameters, self.layout.degrees_of_freedom(y_pred, self.from_raw)

    def mean(self, y_pred: Tensor) -> Tensor:
        """Return the mean only, (..., d), without decoding the covariance."""
        return self.layout.mean(y_pred, self._event_size(y_pred))

    def check(self, y_true: Tensor, y_pred: Tensor, owner: str) -> None:
        """Check that reader and writer use the same structure, and that y_true fits y_pred.

        Raises:
            ValueError: the shapes do not match, or the head wrote a different structure.

        """
        _tag.check(y_pred, self.covariance, owner, self.layout.name, self.from_raw)
        d = self._event_size(y_pred, owner)
        batch = tuple(y_pred.shape)[: len(y_pred.shape) - self.layout.extra_axes]
        shape = tuple(y_true.shape)
        if _agree(shape, (*batch, d)) or (d == 1 and _agree(shape, batch)):
            return
        only = self.covariance.event_size
        needed = (
            f" For {shape[-1]} targets, y_pred would have to be "
            f"{self.layout.expected(shape[-1], self.covariance, self.from_raw)}."
            if len(shape) == len(batch) + 1 and shape[-1] not in (None, 0, d) and only is None
            else ""
        )
        raise ValueError(
            f"{owner}: y_true has shape {shape} and y_pred has shape {tuple(y_pred.shape)}, which "
            f"describes {d} target{'s' if d > 1 else ''} per row (covariance="
            f"{self.covariance.name!r}, layout={self.layout.name!r}, from_raw={self.from_raw}), so "
            f"y_true must have shape {(*batch, d)}. Shapes are not broadcast.{needed}"
        )

    def _event_size(self, y_pred: Tensor, owner: str | None = None) -> int:
        enough_axes = len(y_pred.shape) >= self.layout.extra_axes
        d = self.layout.event_size(y_pred, self.covariance, self.from_raw) if enough_axes else None
        if d is None:
            examples = "; ".join(
                self.layout.expected(n, self.covariance, self.from_raw)
                for n in self._nearest_event_sizes(y_pred)
            )
            who = "" if owner is None else f"{owner}: "
            raise ValueError(
                f"{who}y_pred has shape {tuple(y_pred.shape)}, which covariance="
                f"{self.covariance.name!r} with layout={self.layout.name!r} and "
                f"from_raw={self.from_raw} cannot read. Expected, for example, {examples}. To read "
                "the output of a MultivariateNormalHead, use the head's own covariance."
            )
        return d

    def _nearest_event_sizes(self, y_pred: Tensor) -> tuple[int, ...]:
        if self.covariance.event_size is not None:
            return (self.covariance.event_size,)
        width = y_pred.shape[-1] if len(y_pred.shape) else 1
        below = max(
            (d for d in range(1, width + 1) if self.covariance.packed_size(d) <= width), default=1
        )
        return below, below + 1


def _agree(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Return whether two shapes are equal; an axis of unknown length (None) matches any."""
    return len(shape) == len(expected) and all(
        a is None or b is None or a == b for a, b in zip(shape, expected, strict=True)
    )
