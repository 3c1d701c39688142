"""The structure a head wrote, pinned to its output so that a loss can check its own.

`Cholesky` and `PrecisionCholesky` have equally long y_pred: read with the wrong one, a model
trains, to nonsense. The head therefore tags y_pred the way Keras tags masks, and losses and
metrics compare while they are traced. Tensors that pass through another layer, and the NumPy
arrays of `predict`, carry no tag: nothing is checked there.
"""

from __future__ import annotations

from keras_mvn._keras import get_tensor_attr, set_tensor_attr
from keras_mvn.covariances.base import Covariance
from keras_mvn.types import Tensor

__all__ = ["check", "tag"]

_ATTRIBUTE = "_keras_mvn_covariance"


def tag(y_pred: Tensor, covariance: Covariance) -> Tensor:
    """Pin the structure of a head's output to it; returns y_pred."""
    set_tensor_attr(y_pred, _ATTRIBUTE, covariance)
    # Keras' training step on JAX hands the loss a tracer of `jax.value_and_grad` and the metrics
    # the value it stands for.
    primal = getattr(y_pred, "primal", None)
    if primal is not None:
        set_tensor_attr(primal, _ATTRIBUTE, covariance)
    return y_pred


def check(y_pred: Tensor, covariance: Covariance, reader: str, *, plain: bool = True) -> None:
    """Compare the structure of `reader` with that of the head that wrote y_pred, if known.

    Args:
        y_pred: what the model emitted.
        covariance: the reader's structure.
        reader: its name, for the message.
        plain: False if the reader was told to expect something else than a head's output
            (`from_raw=True` or another layout).

    Raises:
        ValueError: they disagree.

    """
    written: Covariance | None = get_tensor_attr(y_pred, _ATTRIBUTE)
    if written is None:
        return
    if written.wire != covariance.wire:
        raise ValueError(
            f"{reader} reads covariance={covariance.name!r}, but the MultivariateNormalHead that "
            f"made y_pred writes covariance={written.name!r}. Give both the same structure: "
            f"{reader}(covariance={written.name!r})."
        )
    if not plain:
        raise ValueError(
            f"{reader} was told to expect from_raw=True or a layout other than 'packed', but "
            "y_pred comes from a MultivariateNormalHead, which writes valid packed parameters. "
            f"Leave these arguments out: {reader}(covariance={written.name!r})."
        )
