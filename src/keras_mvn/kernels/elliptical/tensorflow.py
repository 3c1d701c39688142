"""Fast path for TensorFlow on the CPU: the native kernels as registered operations."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_mvn.kernels import _native
from keras_mvn.kernels._tensorflow import operations, threads, unsupported
from keras_mvn.kernels.elliptical.types import STRUCTURES, Elliptical, Request
from keras_mvn.layouts._y_true import Targets

__all__ = ["elliptical", "made_by", "reads_around", "supports"]


def supports(packed: tf.Tensor, structure: str, gaps: bool) -> str | None:
    """Return why there is no fast path for this tensor and any structure; None if there is one."""
    return unsupported(packed)


def made_by(packed: tf.Tensor) -> str:
    """Return the implementation of the fast path."""
    return _native.library().made_by


def reads_around(whole: tf.Tensor) -> bool:
    """Whether there is a kernel for y_pred with a trailing column."""
    return True


def elliptical(request: Request, packed: tf.Tensor, targets: Targets) -> Elliptical:
    """Compute `kernels.elliptical.elliptical` on the fast path."""
    batch = tf.shape(packed)[:-1]
    d = targets.values.shape[-1]
    rows = [packed, targets.values, *([] if targets.observed is None else [targets.observed])]
    outputs = _differentiable(request, *(tf.reshape(x, (-1, x.shape[-1])) for x in rows))

    def restored(x: tf.Tensor, *last: int) -> tf.Tensor:
        whole = tf.reshape(x, tf.concat([batch, last], axis=0))
        return tf.ensure_shape(whole, [*packed.shape[:-1], *last])

    mean, squared_mahalanobis, half_log_det, *more = outputs
    trailing = restored(more.pop(0)) if request.trailing else None
    variance = more
    return Elliptical(
        restored(mean, d),
        restored(squared_mahalanobis),
        restored(half_log_det),
        restored(variance[0], d) if variance else None,
        trailing,
    )


def _differentiable(
    request: Request, y_pred: tf.Tensor, y: tf.Tensor, *observed: tf.Tensor
) -> list[tf.Tensor]:
    """Return [mean, squared_mahalanobis, half_log_det[, trailing][, variance]]."""
    d = y.shape[-1]
    structure = STRUCTURES[request.structure or ""]

    @tf.custom_gradient
    def with_gradient(y_pred: tf.Tensor, y: tf.Tensor) -> Any:
        squared_mahalanobis, half_log_det, z, v, variances = operations().keras_mvn_elliptical(
            y_pred,
            y,
            list(observed),
            structure=structure,
            variance=int(request.variance_in_kernel),
            trailing=request.trailing,
            threads=threads(),
        )

        def gradient(*bars: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            mean_bar, squared_mahalanobis_bar, half_log_det_bar = bars[:3]
            y_pred_bar = operations().keras_mvn_elliptical_backward(
                y_pred,
                y,
                z,
                v,
                squared_mahalanobis_bar,
                half_log_det_bar,
                mean_bar,
                [bar[:, None] for bar in bars[3 : 3 + request.trailing]],
                list(observed),
                structure=structure,
                fixed_mean=int(request.fixed_mean),
                threads=threads(),
            )
            return y_pred_bar, 2.0 * squared_mahalanobis_bar[:, None] * v / y_pred[:, d : 2 * d]

        outputs = [y_pred[:, :d], squared_mahalanobis, half_log_det]
        outputs += [y_pred[:, -1]] * request.trailing
        return [*outputs, *variances], gradient

    return list(with_gradient(y_pred, y))
