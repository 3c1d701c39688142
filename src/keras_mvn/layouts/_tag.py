"""What a head wrote, pinned to its output so that a loss can check and use it.

`Cholesky` and `PrecisionCholesky` have equally long y_pred: read with the wrong one, a model
trains, to nonsense. The head therefore tags y_pred the way Keras tags masks, and losses and
metrics compare while they are traced. Tensors that pass through another layer, and the NumPy
arrays of `predict`, carry no tag: nothing is checked there. The tag also carries the units of y
that `adapt` measured, for losses whose gradient must not depend on them.
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

from keras_mvn._core.keras_internals import get_tensor_attr, set_tensor_attr
from keras_mvn._core.types import Tensor
from keras_mvn.covariances.base import Covariance

__all__ = ["Written", "check", "read", "tag"]

_ATTRIBUTE = "_keras_mvn_written"


class Written(NamedTuple):
    """What a `MultivariateNormalHead` says of its output."""

    covariance: Covariance
    layout: str
    unit: Tensor
    """(d,), the variable that holds the standard deviations of y, by which means are scaled."""


def read(y_pred: Tensor) -> Written | None:
    """What the head that made y_pred said of it; None if no head did, or another layer followed."""
    written: Written | None = get_tensor_attr(y_pred, _ATTRIBUTE)
    return written


def tag(y_pred: Tensor, written: Written) -> Tensor:
    """Pin what a head says of its output to it; returns y_pred."""
    set_tensor_attr(y_pred, _ATTRIBUTE, written)
    # Keras' training step on JAX hands the loss a tracer of `jax.value_and_grad` and the metrics
    # the value it stands for.
    primal = getattr(y_pred, "primal", None)
    if primal is not None:
        set_tensor_attr(primal, _ATTRIBUTE, written)
    return y_pred


def check(y_pred: Tensor, covariance: Covariance, reader: str, layout: str, from_raw: bool) -> None:
    """Compare structure and layout of `reader` with those of the head that wrote y_pred, if known.

    Args:
        y_pred: what the model emitted.
        covariance: the reader's structure.
        reader: its name, for the message.
        layout: the layout that the reader expects.
        from_raw: whether the reader expects unconstrained numbers.

    Raises:
        ValueError: they disagree.

    """
    written = read(y_pred)
    if written is None:
        return
    name = _spelled(written.covariance)
    if written.covariance.wire != covariance.wire:
        raise ValueError(
            f"{reader} reads covariance={_spelled(covariance)}, but the MultivariateNormalHead "
            f"that made y_pred writes covariance={name}. Give both the same structure: "
            f"{reader}(covariance={name})."
        )
    if from_raw or layout != written.layout:
        expected = "" if written.layout == "packed" else f", layout={written.layout!r}"
        raise ValueError(
            f"{reader} was told to expect from_raw={from_raw} and layout={layout!r}, but y_pred "
            "comes from a MultivariateNormalHead, which writes valid parameters in the layout "
            f"{written.layout!r}. Use {reader}(covariance={name}{expected})."
        )


def _spelled(covariance: Covariance) -> str:
    """How a user writes this structure: its name, or a call if it has arguments."""
    return repr(covariance) if fields(covariance) else repr(covariance.name)
