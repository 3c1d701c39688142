"""Tags that a head attaches to its output, so that a loss can check and use them.

`Cholesky` and `PrecisionCholesky` have y_pred of the same width: with the wrong one, a model
trains without an error but learns nonsense. The head therefore tags y_pred the way Keras attaches
masks, and losses and metrics compare structures while they are traced. Tensors that pass through
another layer, and the NumPy arrays returned by `predict`, carry no tag and are not checked. The tag
also carries the units of y that `adapt` measured, for losses whose gradient must not depend on
them.
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
    """The description that a `MultivariateNormalHead` attaches to its output."""

    covariance: Covariance
    layout: str
    unit: Tensor
    """(d,), the variable with the standard deviations of y, by which the means are scaled."""


def read(y_pred: Tensor) -> Written | None:
    """Return the tag of y_pred; None if it is not directly the output of a head."""
    written: Written | None = get_tensor_attr(y_pred, _ATTRIBUTE)
    return written


def tag(y_pred: Tensor, written: Written) -> Tensor:
    """Attach a head's description to its output y_pred, and return y_pred."""
    set_tensor_attr(y_pred, _ATTRIBUTE, written)
    # In Keras' training step on JAX, the loss receives a tracer from `jax.value_and_grad`, and the
    # metrics receive its primal value.
    primal = getattr(y_pred, "primal", None)
    if primal is not None:
        set_tensor_attr(primal, _ATTRIBUTE, written)
    return y_pred


def check(y_pred: Tensor, covariance: Covariance, reader: str, layout: str, from_raw: bool) -> None:
    """Compare the reader's structure and layout with those of the head behind y_pred, if known.

    Args:
        y_pred: the output of the model.
        covariance: the reader's structure.
        reader: the reader's name, for the error message.
        layout: the layout that the reader expects.
        from_raw: whether the reader expects unconstrained numbers.

    Raises:
        ValueError: they differ.

    """
    written = read(y_pred)
    if written is None:
        return
    name = _spelled(written.covariance)
    if written.covariance.wire != covariance.wire:
        raise ValueError(
            f"{reader} reads covariance={_spelled(covariance)}, but the MultivariateNormalHead "
            f"that produced y_pred writes covariance={name}. Use the same structure for both: "
            f"{reader}(covariance={name})."
        )
    if layout != written.layout and written.layout.startswith("mixture_"):
        n = written.layout.split("_")[1]
        raise ValueError(
            f"{reader} expects layout={layout!r}, but y_pred comes from a head with "
            f"n_components={n}, which writes layout={written.layout!r}. Use "
            f"MixtureNegativeLogLikelihood({n}, covariance={name}), and metrics with that layout."
        )
    if from_raw or layout != written.layout:
        expected = "" if written.layout == "packed" else f", layout={written.layout!r}"
        raise ValueError(
            f"{reader} expects from_raw={from_raw} and layout={layout!r}, but y_pred comes from a "
            "MultivariateNormalHead, which writes constrained parameters with "
            f"layout={written.layout!r}. Use {reader}(covariance={name}{expected})."
        )


def _spelled(covariance: Covariance) -> str:
    """Return the structure as a user would write it: its name, or a call if it has arguments."""
    return repr(covariance) if fields(covariance) else repr(covariance.name)
