"""The layouts of y_pred, and the `Reader` that decodes them."""

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
    """The parameters in y_pred: a mean and a covariance Σ = S R S, in the units of y."""

    mean: Tensor
    """(..., d)"""
    scale: Tensor
    """(..., d), positive."""
    shape_params: Tensor
    """(..., k), dimensionless; the structure computes R from it."""

    @property
    def packed(self) -> Tensor | None:
        """`[mean | scale | shape_params]` as one tensor, or None if they were not read from one."""
        return None


class PackedParameters(Parameters):
    """Parameters that are slices of one tensor, for code that can read that tensor directly."""

    _packed: Tensor

    @classmethod
    def of(cls, packed: Tensor, event_size: int) -> PackedParameters:
        """Slice `[mean | scale | shape_params]` into mean, scale and shape parameters."""
        d = event_size
        parameters = cls(packed[..., :d], packed[..., d : 2 * d], packed[..., 2 * d :])
        parameters._packed = packed
        return parameters

    @property
    def packed(self) -> Tensor:
        """The tensor `[mean | scale | shape_params]`."""
        return self._packed


def degrees_of_freedom_from(raw: Tensor) -> Tensor:
    """Return ν = 2 + 8 link(raw) for Student's t: above 2, so Σ exists; 10 at raw = 0."""
    return 2.0 + 8.0 * links.positive(raw)


class Layout(abc.ABC):
    """An arrangement of the parameters in y_pred; stateless, so one instance of each suffices."""

    name: str
    covariance: str | None = None
    """The structure that this layout implies, or None."""
    extra_axes = 1
    """The number of axes of y_pred after the batch axes."""
    of_a_head = False
    """Whether a `MultivariateNormalHead` writes this layout, in the units of y."""
    has_degrees_of_freedom = False

    @abc.abstractmethod
    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        """Return d, inferred from the shape of y_pred; None if no d fits."""

    @abc.abstractmethod
    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        """Describe the shape that y_pred should have, for error messages."""

    def degrees_of_freedom(self, y_pred: Tensor, from_raw: bool) -> Tensor | None:
        """Return ν of each row (...) if the layout has it; None for the normal distribution."""
        return None

    def mean(self, y_pred: Tensor, event_size: int) -> Tensor:
        """Return the mean only: the first d columns, unless the layout overrides this."""
        return y_pred[..., :event_size]

    @abc.abstractmethod
    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        """Read the parameters from y_pred, whose shape has been checked."""


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
    """The "packed" layout plus a column for the degrees of freedom of a multivariate Student's t.

    `scale` and `shape_params` then describe Student's scale matrix; the covariance is ν/(ν − 2)
    times as large. Readers that do not support Student's t use the normal distribution with the
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
        return f"{inner}; plus one column for the degrees of freedom"

    def degrees_of_freedom(self, y_pred: Tensor, from_raw: bool) -> Tensor:
        column = y_pred[..., -1]
        return degrees_of_freedom_from(column) if from_raw else column

    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        return self._rest.decode(y_pred[..., :-1], event_size, covariance, from_raw)


@final
class Stacked(Layout):
    """A (..., d, 1 + d) layout: column 0 is the mean, the rest a matrix read by the structure.

    The matrix is the factor L of Σ for `Cholesky`, the factor P of Σ⁻¹ for `PrecisionCholesky`
    (only the lower triangle of either is read), and Σ itself for `Symmetric`. Unconstrained
    matrices need `from_raw`.
    """

    name = "stacked"
    extra_axes = 2

    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        rows, columns = y_pred.shape[-2:]
        return rows if columns == rows + 1 else None

    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        return f"(..., {event_size}, {event_size + 1}): the mean in column 0, then a square matrix"

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
    """A (..., 2 d) layout: the means, then the log-variances; implies `Diagonal`."""

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
    """Return the layout with this name.

    Raises:
        ValueError: there is no layout with this name; the message lists the known ones.

    """
    if name not in _LAYOUTS:
        raise ValueError(f"layout={name!r} is not known. Expected one of {sorted(_LAYOUTS)}.")
    return _LAYOUTS[name]


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

        Raises:
            ValueError: the shape of y_pred fits no number of targets.

        """
        parameters, nu = self.decode_student_t(y_pred)
        if nu is None:
            return parameters
        mean, scale, shape_params = parameters
        ratio = namespace(nu).sqrt(nu / (nu - 2.0))  # the covariance of Student's t
        return Parameters(mean, scale * ratio[..., None], shape_params)

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
