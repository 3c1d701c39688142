"""The operation `parameters`: from raw network outputs to packed parameters in the units of y.

    x     = raw + bias
    mean  = origin.mean  + origin.stddev · x mean
    scale = origin.floor + origin.scale · link(x scale)
    shape = origin.shape + x shape, in the ball of `Covariance.shape_bound`

It also computes the shrinkage penalty of each row: ½ Σⱼ strengthsⱼ rawⱼ².

The fast path is for training: it reads the raw numbers once and writes y_pred once, and so does its
gradient. Inference and export take the reference, whose operations every format supports.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_mvn._core.keras_internals import in_symbolic_scope
from keras_mvn._core.types import Tensor
from keras_mvn.kernels._dispatch import choose, module_of_backend
from keras_mvn.kernels.parameters import reference
from keras_mvn.kernels.parameters.types import Emitted, Origin

__all__ = ["NAME", "Emitted", "Origin", "made_by", "parameters", "supports"]

NAME = "parameters"

_BACKEND = module_of_backend(__name__)


def parameters(
    covariance: Any,
    raw: Tensor,
    origin: Origin,
    *,
    training: bool,
    bias: Tensor | None = None,
    strengths: Tensor | None = None,
) -> Emitted:
    """Return `[mean | scale | shape_params]` (..., 2 d + k) and the shrinkage penalty.

    Args:
        covariance: the covariance structure.
        raw: (..., d + raw_size), raw means, then the inputs of `Covariance.constrain`.
        origin: the parameters that raw zeros represent.
        training: bool, whether the result will be differentiated.
        bias: (d + raw_size,), added to the raw numbers of every row.
        strengths: (raw_size,), strengths with which shrinkage pulls raw numbers toward 0.

    """
    if in_symbolic_scope():  # Keras only infers shapes: no path is chosen
        return reference.parameters(covariance, raw, origin, bias, strengths)
    reason = _unsupported(covariance, raw) if training else "the layer is not in training mode."
    if not choose(NAME, None, reason):
        return reference.parameters(covariance, raw, origin, bias, strengths)
    radius = covariance.shape_bound(origin.mean.shape[0]) or 0.0
    emitted: Emitted = _BACKEND.parameters(raw, origin, radius, bias, strengths)
    return emitted


def _unsupported(covariance: Any, raw: Tensor) -> str | None:
    """Return the reason why the fast path is not supported; None if it is."""
    if not covariance.links_separately:
        return "there is no kernel for this structure."
    return supports(raw)


def supports(raw: Tensor) -> str | None:
    """Return why the active backend has no fast path for this tensor; None if it has one."""
    if _BACKEND is None:
        return f"there are no kernels for the backend {keras.backend.backend()}."
    reason: str | None = _BACKEND.supports(raw)
    return reason


def made_by(raw: Tensor) -> str:
    """Return the implementation of the fast path for this tensor, which `supports` accepts."""
    found: str = _BACKEND.made_by(raw)
    return found
