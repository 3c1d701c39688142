"""The layouts of y_pred, and the `Reader` that decodes them."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple, final

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance, links

__all__ = [
    "Layout",
    "MeanLogVariance",
    "Packed",
    "PackedParameters",
    "Parameters",
    "Stacked",
    "StudentT",
    "StudentTParameters",
    "degrees_of_freedom_from",
    "raw_degrees_of_freedom",
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

    @property
    def with_trailing(self) -> Tensor | None:
        """`[mean | scale | shape_params | ν]` as one tensor, or None if it is none."""
        return None

    @property
    def degrees_of_freedom(self) -> Tensor | None:
        """ν (...), if Σ is the scale matrix of a Student's t; None for a normal."""
        return None

    @property
    def components(self) -> tuple[Parameters, ...]:
        """The parameters of the components of a mixture; of a single distribution, its own."""
        return (self,)

    @property
    def logits(self) -> Tensor | None:
        """Logits of the weights of a mixture (..., n); None for a single distribution."""
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


class StudentTParameters(Parameters):
    """Parameters of the scale matrix of a Student's t, together with ν (...)."""

    _degrees_of_freedom: Tensor
    _packed: Tensor | None
    _with_trailing: Tensor | None

    @classmethod
    def of(
        cls,
        parameters: Parameters,
        degrees_of_freedom: Tensor,
        with_trailing: Tensor | None = None,
    ) -> StudentTParameters:
        """Add ν to the parameters of a scale matrix; `with_trailing` is the tensor of all."""
        both = cls(*parameters)
        both._degrees_of_freedom, both._packed = degrees_of_freedom, parameters.packed
        both._with_trailing = with_trailing
        return both

    @property
    def with_trailing(self) -> Tensor | None:
        """The tensor from which all parameters were read, ν last."""
        return self._with_trailing

    @property
    def packed(self) -> Tensor | None:
        """The tensor from which the parameters were read, without ν."""
        return self._packed

    @property
    def degrees_of_freedom(self) -> Tensor:
        """The degrees of freedom ν (...)."""
        return self._degrees_of_freedom


def degrees_of_freedom_from(raw: Tensor) -> Tensor:
    """Return ν = 2 + 8 link(raw) for Student's t: above 2, so Σ exists; 10 at raw = 0."""
    return 2.0 + 8.0 * links.positive(raw)


def raw_degrees_of_freedom(nu: Tensor) -> Tensor:
    """Return the raw number that `degrees_of_freedom_from` maps to ν."""
    return links.positive_inverse((nu - 2.0) / 8.0)


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
    component: Layout | None = None
    """The layout of the components of a mixture; None for single distributions."""

    @abc.abstractmethod
    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        """Return d, inferred from the shape of y_pred; None if no d fits."""

    @abc.abstractmethod
    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        """Describe the shape that y_pred should have, for error messages."""

    def degrees_of_freedom(self, y_pred: Tensor, from_raw: bool) -> Tensor | None:
        """Return ν of each row (...) if the layout has it; None for the normal distribution."""
        return None

    def split(self, y_pred: Any) -> tuple[Any, list[Any]]:
        """Return the logits of a mixture's weights (..., n), or None, and y_pred by component."""
        return None, [y_pred]

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
    times as large. Readers that do not support Student's t, such as the losses for normals, use the
    normal distribution with the same mean and covariance.
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
