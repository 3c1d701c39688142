"""From what a network emits to packed parameters in the units of y, written once.

    x     = raw + bias
    mean  = origin.mean  + origin.stddev · x mean
    scale = origin.scale · link(x scale)
    shape = origin.shape + x shape, in the ball of `Covariance.shape_bound`

and, on the way, what shrinkage asks of each row: ½ Σⱼ strengthsⱼ rawⱼ².

The fast path is for training: it reads the raw numbers once and writes y_pred once, and its
gradient likewise. Inference and export take the reference, operations that every format knows.
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
    """`[mean | scale | shape_params]`: (..., d + raw_size) → (..., 2 d + k), and the penalty.

    Args:
        covariance: the structure.
        raw: of the mean, then of what `Covariance.constrain` takes: (..., d + raw_size).
        origin: what raw zeros stand for.
        training: whether the result is going to be differentiated.
        bias: (d + raw_size,), what all rows share.
        strengths: (raw_size,), of shrinkage: how strongly raw numbers are pulled to 0.

    """
    if in_symbolic_scope():  # Keras asks for shapes: nothing is computed, and nothing chosen
        return reference.parameters(covariance, raw, origin, bias, strengths)
    reason = _unsupported(covariance, raw) if training else "it is not training."
    if not choose(NAME, None, reason):
        return reference.parameters(covariance, raw, origin, bias, strengths)
    radius = covariance.shape_bound(origin.mean.shape[0]) or 0.0
    emitted: Emitted = _BACKEND.parameters(raw, origin, radius, bias, strengths)
    return emitted


def _unsupported(covariance: Any, raw: Tensor) -> str | None:
    """Why the fast path cannot be taken; None if it can."""
    if not covariance.links_separately:
        return "there is no kernel for this structure."
    return supports(raw)


def supports(raw: Tensor) -> str | None:
    """Why the active backend has no fast path for this tensor; None if it has."""
    if _BACKEND is None:
        return f"there are no kernels for the backend {keras.backend.backend()}."
    reason: str | None = _BACKEND.supports(raw)
    return reason


def made_by(raw: Tensor) -> str:
    """What the fast path for this tensor is made of, where `supports` has no reason."""
    found: str = _BACKEND.made_by(raw)
    return found
