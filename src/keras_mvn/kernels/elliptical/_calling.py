"""The C interface of native/core/elliptical.h."""

from __future__ import annotations

import ctypes

from keras_mvn.kernels._calling import addresses, call, sizes

__all__ = ["backward", "forward"]


class _Forward(ctypes.Structure):
    _fields_ = [
        ("structure", ctypes.c_int32),
        *sizes("rows", "d", "k", "stride"),
        *addresses(
            "y_pred", "y", "observed", "squared_mahalanobis", "half_log_det", "variance", "z", "v"
        ),
    ]


class _Backward(ctypes.Structure):
    _fields_ = [
        ("structure", ctypes.c_int32),
        ("fixed_mean", ctypes.c_int32),
        *sizes("rows", "d", "k", "stride", "trailing"),
        *addresses("y_pred", "y", "observed", "z", "v"),
        *addresses("squared_mahalanobis_bar", "half_log_det_bar", "mean_bar"),
        *addresses("trailing_bar", "y_pred_bar"),
    ]


def forward(bytes_of_a_number: int, threads: int, *fields: int) -> None:
    """Run the forward pass; `fields` are those of `kmvn_forward` in their order, 0 for NULL."""
    call("elliptical_forward", bytes_of_a_number, threads, _Forward(*fields))


def backward(bytes_of_a_number: int, threads: int, *fields: int) -> None:
    """Run the backward pass; `fields` are those of `kmvn_backward` in their order, 0 for NULL."""
    call("elliptical_backward", bytes_of_a_number, threads, _Backward(*fields))
