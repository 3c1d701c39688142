"""The layouts: where mean, scale and shape stand in y_pred, and the reader of all of them."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple, final

import keras

from keras_mvn import covariances
from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance, CovarianceLike, links
from keras_mvn.layouts import _tag

__all__ = [
    "Layout",
    "MeanLogVariance",
    "Packed",
    "PackedParameters",
    "Parameters",
    "Reader",
    "Stacked",
    "StudentT",
    "degrees_of_freedom_from",
    "get",
]


class Parameters(NamedTuple):
    """What y_pred says: Σ = S R S around a mean, in the units of y."""

    mean: Tensor
    """(..., d)"""
    scale: Tensor
    """(..., d), positive."""
    shape_params: Tensor
    """(..., k), dimensionless; the structure reads R from it."""

    @property
    def packed(self) -> Tensor | None:
        """`[mean | scale | shape_params]` as one tensor, if they were read from such a one."""
        return None


class PackedParameters(Parameters):
    """Parameters that are slices of one tensor, for what can read it as it stands."""

    _packed: Tensor

    @classmethod
    def of(cls, packed: Tensor, event_size: int) -> PackedParameters:
        """Mean, scale and shape parameters of `[mean | scale | shape_params]`."""
        d = event_size
        parameters = cls(packed[..., :d], packed[..., d : 2 * d], packed[..., 2 * d :])
        parameters._packed = packed
        return parameters

    @property
    def packed(self) -> Tensor:
        """The tensor."""
        return self._packed


def degrees_of_freedom_from(raw: Tensor) -> Tensor:
    """ν = 2 + 8 link(raw) of Student's t: above 2, so that a covariance exists; 10 at raw = 0."""
    return 2.0 + 8.0 * links.positive(raw)


class Layout(abc.ABC):
    """Where the parameters stand in y_pred. Holds nothing: one instance of each is enough."""

    name: str
    covariance: str | None = None
    """The structure that this layout implies, or None."""
    extra_axes = 1
    """Axes of y_pred beside the batch axes."""
    of_a_head = False
    """Whether a `MultivariateNormalHead` writes it, in the units of y."""
    has_degrees_of_freedom = False

    @abc.abstractmethod
    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        """d, read off the shape of y_pred; None if no d fits."""

    @abc.abstractmethod
    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        """For error messages: the shape y_pred should have."""

    def degrees_of_freedom(self, y_pred: Tensor, from_raw: bool) -> Tensor | None:
        """ν of each row (...), if the layout carries it; None for the normal distribution."""
        return None

    def mean(self, y_pred: Tensor, event_size: int) -> Tensor:
        """The mean alone; the first d columns unless the layout says otherwise."""
        return y_pred[..., :event_size]

    @abc.abstractmethod
    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        """The parameters in y_pred, whose shape was checked."""


@final
class Packed(Layout):
    """`[mean (d) | scale (d) | shape_params (k)]`; with `from_raw`, `[mean (d) | raw (m)]`."""

    name = "packed"
    of_a_head = True

    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        width = y_pred.shape[-1]
        if not from_raw:
            return covariance.event_size_of(width)
        return covariance.event_size_of_raw(width)

    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        if not from_raw:
            size = covariance.packed_size(event_size)
            return f"(..., {size}): {covariance.explain_sizes(event_size)}"
        raw = covariance.raw_size(event_size)
        return (
            f"(..., {event_size + raw}): with from_raw=True, {covariance.name!r} needs "
            f"{event_size} numbers for the mean and {raw} for the covariance of {event_size} "
            "targets"
        )

    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        if not from_raw:
            return PackedParameters.of(y_pred, event_size)
        mean, rest = self.mean(y_pred, event_size), y_pred[..., event_size:]
        return Parameters(mean, *covariance.constrain(rest, event_size))


@final
class StudentT(Layout):
    """As "packed", with one trailing column: the degrees of freedom of a multivariate Student's t.

    `scale` and `shape_params` then describe Student's scale matrix; its covariance is ν/(ν − 2)
    times as large. Readers that are not made for Student's t take the normal distribution of the
    same mean and covariance.
    """

    name = "student_t"
    of_a_head = True
    has_degrees_of_freedom = True
    _rest = Packed()

    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        return self._rest.event_size(y_pred[..., :-1], covariance, from_raw)

    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        inner = self._rest.expected(event_size, covariance, from_raw)
        return f"{inner}; and one more column for the degrees of freedom"

    def degrees_of_freedom(self, y_pred: Tensor, from_raw: bool) -> Tensor:
        column = y_pred[..., -1]
        return degrees_of_freedom_from(column) if from_raw else column

    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        return self._rest.decode(y_pred[..., :-1], event_size, covariance, from_raw)


@final
class Stacked(Layout):
    """(..., d, 1 + d): column 0 the mean, the rest a matrix that the structure reads.

    For `Cholesky` the factor L of Σ, for `PrecisionCholesky` the factor P of Σ⁻¹ (of both only the
    lower triangle is read), for `Symmetric` Σ itself; unconstrained ones need `from_raw`.
    """

    name = "stacked"
    extra_axes = 2

    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        rows, columns = y_pred.shape[-2:]
        return rows if columns == rows + 1 else None

    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        return f"(..., {event_size}, {event_size + 1}): column 0 the mean, then a square matrix"

    def mean(self, y_pred: Tensor, event_size: int) -> Tensor:
        return y_pred[..., 0]

    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        mean, matrix = self.mean(y_pred, event_size), y_pred[..., 1:]
        if from_raw:
            raw = covariance.raw_from_matrix(matrix)
            return Parameters(mean, *covariance.constrain(raw, event_size))
        return Parameters(mean, *covariance.from_matrix(matrix))


@final
class MeanLogVariance(Layout):
    """(..., 2 d): the mean, then the logarithms of the variances; implies `Diagonal`."""

    name = "mean_log_variance"
    covariance = "diagonal"

    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        width: int = y_pred.shape[-1]
        return width // 2 if width % 2 == 0 else None

    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        return f"(..., {2 * event_size}): {event_size} means, then {event_size} log-variances"

    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        scale = links.positive_from_log(0.5 * y_pred[..., event_size:])
        return Parameters(self.mean(y_pred, event_size), scale, y_pred[..., :0])


_LAYOUTS = {layout.name: layout for layout in (Packed(), StudentT(), Stacked(), MeanLogVariance())}


def get(name: str) -> Layout:
    """The layout of this name.

    Raises:
        ValueError: no layout has this name; the message lists those that exist.

    """
    if name not in _LAYOUTS:
        raise ValueError(f"layout={name!r} is not known. Expected one of {sorted(_LAYOUTS)}.")
    return _LAYOUTS[name]


@final
class Reader:
    """How to read y_pred: structure, layout and whether the numbers are unconstrained.

    Args:
        covariance: a structure or its name.
        from_raw: y_pred holds unconstrained numbers (an ordinary Dense output), to which the
            structure's link is applied, as Keras says `from_logits`.
        layout: "packed", "student_t", "stacked" or "mean_log_variance".

    Raises:
        ValueError: an unknown name, or a layout that implies another structure.

    """

    def __init__(self, covariance: CovarianceLike, from_raw: bool, layout: str) -> None:
        chosen, structure = get(layout), covariances.get(covariance)
        if chosen.covariance is not None:
            implied = covariances.get(chosen.covariance)
            # The default name cannot be told from one that was typed; it gives way.
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
        """The arguments, serializable."""
        return {
            "covariance": keras.saving.serialize_keras_object(self.covariance),
            "from_raw": self.from_raw,
            "layout": self.layout.name,
        }

    def decode(self, y_pred: Tensor) -> Parameters:
        """Mean, scale and shape parameters of the normal distributions in y_pred.

        Raises:
            ValueError: no number of targets gives y_pred this shape.

        """
        parameters, nu = self.decode_student_t(y_pred)
        if nu is None:
            return parameters
        mean, scale, shape_params = parameters
        ratio = namespace(nu).sqrt(nu / (nu - 2.0))  # the covariance of Student's t
        return Parameters(mean, scale * ratio[..., None], shape_params)

    def decode_student_t(self, y_pred: Tensor) -> tuple[Parameters, Tensor | None]:
        """Location, scale and shape parameters as they stand in y_pred, and ν (...) if it is there.

        Raises:
            ValueError: no number of targets gives y_pred this shape.

        """
        d = self._event_size(y_pred)
        parameters = self.layout.decode(y_pred, d, self.covariance, self.from_raw)
        return parameters, self.layout.degrees_of_freedom(y_pred, self.from_raw)

    def mean(self, y_pred: Tensor) -> Tensor:
        """The mean alone, (..., d), without the work of reading a covariance."""
        return self.layout.mean(y_pred, self._event_size(y_pred))

    def check(self, y_true: Tensor, y_pred: Tensor, owner: str) -> None:
        """Compare the structures of reader and writer, and the shapes of y_true and y_pred.

        Raises:
            ValueError: they don't belong together, or a head wrote another structure.

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
            f"y_true must have shape {(*batch, d)}. Nothing is broadcast.{needed}"
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
                f"from_raw={self.from_raw} cannot read. Expected for example {examples}. What a "
                "MultivariateNormalHead wrote is read with the head's own covariance."
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
    """Whether two shapes are equal, an axis of unknown length (None) being equal to any."""
    return len(shape) == len(expected) and all(
        a is None or b is None or a == b for a, b in zip(shape, expected, strict=True)
    )
