"""The operation `elliptical`: squared Mahalanobis distance and ½ log det Σ from y_pred and y.

    squared_mahalanobis = ‖z‖²,   half_log_det = ½ log det Σ,   z = R^(−½) u,   u = (y − mean)/scale

The fast path makes one pass over y_pred in each direction: it reads
`[mean | scale | shape_params]` as the head wrote it, keeps z and v = ½ ∂‖z‖²/∂u, and writes the
whole gradient once. The reference slices y_pred and leaves the rest to the structure.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mvn._core.keras_internals import in_symbolic_scope
from keras_mvn._core.types import Tensor
from keras_mvn.kernels._dispatch import choose, module_of_backend
from keras_mvn.kernels.elliptical import reference
from keras_mvn.kernels.elliptical.types import Elliptical, Request
from keras_mvn.layouts._y_true import Targets

__all__ = ["NAME", "Elliptical", "elliptical", "made_by", "supports"]

NAME = "elliptical"

_BACKEND = module_of_backend(__name__)


def elliptical(
    covariance: Any,
    targets: Targets,
    parameters: Any,
    *,
    fixed_mean: bool = False,
    variance: bool = False,
    fused: bool | None = None,
) -> Elliptical:
    """Return mean, squared Mahalanobis distance, ½ log det Σ and, on request, variances per row.

    Args:
        covariance: the structure that reads the parameters.
        targets: y and the mask of its observed values.
        parameters: `layouts.Parameters`; `packed` is y_pred itself, if it has that form.
        fixed_mean: bool, whether to treat distance and ½ log det Σ as independent of the mean; the
            gradient with respect to the mean then comes only from the `mean` of the result.
        variance: bool, whether to also return the diagonal of Σ, without a gradient.
        fused: as in `kernels`.

    Raises:
        ValueError: fused=True, but the fast path is not supported.

    """
    request = Request(covariance.wire.fused_form, fixed_mean, variance)
    if in_symbolic_scope():  # Keras only infers shapes: no path is chosen
        return reference.elliptical(covariance, targets, parameters, request)
    reason = _unsupported(request, targets, parameters)
    if not choose(NAME, fused, reason):
        return reference.elliptical(covariance, targets, parameters, request)
    whole = parameters.with_trailing
    if whole is not None and _BACKEND.reads_around(whole):
        # A copy without the trailing column would cost as much as the kernel.
        found = _BACKEND.elliptical(request._replace(trailing=1), whole, targets)
    else:
        found = _BACKEND.elliptical(request, parameters.packed, targets)
    if not variance or found.variance is not None:
        return found
    _, scale, shape_params = parameters
    variances = covariance.variance(ops.stop_gradient(scale), ops.stop_gradient(shape_params))
    return found._replace(variance=variances)


def _unsupported(request: Request, targets: Targets, parameters: Any) -> str | None:
    """Return the reason why the fast path is not supported; None if it is."""
    if request.structure is None:
        return "there is no kernel for this structure."
    if parameters.packed is None:
        return "y_pred does not have the form [mean | scale | shape_params]."
    return supports(parameters.packed, request.structure, targets.observed is not None)


def supports(packed: Tensor, structure: str = "cholesky", gaps: bool = False) -> str | None:
    """Return the reason why the active backend has no fast path; None if it has one.

    Args:
        packed: y_pred.
        structure: one of `STRUCTURES`.
        gaps: bool, whether rows may have missing values.

    """
    if _BACKEND is None:
        return f"there are no kernels for the backend {keras.backend.backend()}."
    reason: str | None = _BACKEND.supports(packed, structure, gaps)
    return reason


def made_by(packed: Tensor) -> str:
    """Return the implementation of the fast path for this tensor, which `supports` accepts."""
    found: str = _BACKEND.made_by(packed)
    return found
