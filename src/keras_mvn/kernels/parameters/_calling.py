"""The C interface of native/core/parameters.h."""

from __future__ import annotations

import ctypes

from keras_mvn.kernels._calling import addresses, call, sizes

__all__ = ["backward", "forward"]


class _Forward(ctypes.Structure):
    _fields_ = [
        *sizes("rows", "d", "k"),
        ("radius", ctypes.c_double),
        *addresses("raw", "bias"),
        *addresses("origin_mean", "origin_stddev", "origin_scale", "origin_shape"),
        *addresses("floor", "strengths"),
        *addresses("y_pred", "penalty"),
    ]


class _Backward(ctypes.Structure):
    _fields_ = [
        *sizes("rows", "d", "k"),
        ("radius", ctypes.c_double),
        *addresses("raw", "bias", "origin_stddev", "origin_scale", "strengths"),
        *addresses("y_pred_bar", "penalty_bar"),
        *addresses("raw_bar"),
    ]


def forward(bytes_of_a_number: int, threads: int, *fields: float) -> None:
    """Run the forward pass; `fields` are those of `kmvn_parameters_forward`, in their order."""
    call("parameters_forward", bytes_of_a_number, threads, _Forward(*fields))


def backward(bytes_of_a_number: int, threads: int, *fields: float) -> None:
    """Run the backward pass; `fields` are those of `kmvn_parameters_backward`, in their order."""
    call("parameters_backward", bytes_of_a_number, threads, _Backward(*fields))
