"""The layout of mixtures: logits of the weights, then the parameters of each component."""

from __future__ import annotations

import re
from typing import Any, Self, final

from keras_mvn._core.types import Tensor
from keras_mvn.covariances import Covariance
from keras_mvn.layouts._layouts import Layout, Packed, Parameters, StudentT

__all__ = ["MixtureLayout", "MixtureParameters"]

_NAME = re.compile(r"mixture_(\d+)(_student_t)?")


@final
class MixtureParameters(Parameters):
    """The parameters of the components of a mixture; its `mean` is that of the mixture."""

    _components: tuple[Parameters, ...]
    _logits: Tensor

    @classmethod
    def of(cls, mean: Tensor, components: tuple[Parameters, ...], logits: Tensor) -> Self:
        """Join components; scale and shape parameters are those of none."""
        created = cls(mean, mean[..., :0], mean[..., :0])
        created._components, created._logits = components, logits
        return created

    @property
    def components(self) -> tuple[Parameters, ...]:
        """The parameters of each component."""
        return self._components

    @property
    def logits(self) -> Tensor:
        """Logits of the weights (..., n): w = softmax(logits)."""
        return self._logits


@final
class MixtureLayout(Layout):
    """`[logits (n) | block 1 | … | block n]`, each block "packed" or "student_t"."""

    of_a_head = True

    def __init__(self, n_components: int, component: Layout) -> None:
        self.n_components, self._inner = n_components, component
        self.component = component
        suffix = "_student_t" if component.has_degrees_of_freedom else ""
        self.name = f"mixture_{n_components}{suffix}"
        self.has_degrees_of_freedom = component.has_degrees_of_freedom

    @classmethod
    def named(cls, name: str) -> MixtureLayout | None:
        """Return the layout with a name such as "mixture_3" or "mixture_3_student_t", or None."""
        found = _NAME.fullmatch(name)
        if found is None or int(found[1]) < 1:
            return None
        return cls(int(found[1]), StudentT() if found[2] else Packed())

    def split(self, y_pred: Any) -> tuple[Any, list[Any]]:
        """Return the logits (..., n), and the block of each component."""
        n = self.n_components
        width = (y_pred.shape[-1] - n) // n
        blocks = [y_pred[..., n + i * width : n + (i + 1) * width] for i in range(n)]
        return y_pred[..., :n], blocks

    def event_size(self, y_pred: Tensor, covariance: Covariance, from_raw: bool) -> int | None:
        width = y_pred.shape[-1] - self.n_components
        if width <= 0 or width % self.n_components:
            return None
        return self._inner.event_size(self.split(y_pred)[1][0], covariance, from_raw)

    def expected(self, event_size: int, covariance: Covariance, from_raw: bool) -> str:
        inner = self._inner.expected(event_size, covariance, from_raw)
        return f"{self.n_components} logits, then {self.n_components} times {inner}"

    def decode(
        self, y_pred: Tensor, event_size: int, covariance: Covariance, from_raw: bool
    ) -> Parameters:
        raise ValueError(
            f"layout={self.name!r} holds mixtures, and this reads a single normal or Student's t. "
            "Mixtures are read by losses.MixtureNegativeLogLikelihood, ops.log_prob, "
            "metrics.NegativeLogLikelihood and the head's `distribution`."
        )
