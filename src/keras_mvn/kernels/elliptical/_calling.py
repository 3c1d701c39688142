"""The C interface of native/core/elliptical.h, for addresses of memory."""

from __future__ import annotations

import ctypes

from keras_mvn.kernels import _native

__all__ = ["backward", "forward"]

_SIZES = [("rows", ctypes.c_int64), ("d", ctypes.c_int64), ("stride", ctypes.c_int64)]


def _addresses(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


class _Forward(ctypes.Structure):
    _fields_ = [
        ("structure", ctypes.c_int32),
        *_SIZES,
        *_addresses("y_pred", "y", "observed", "mahalanobis", "log_scale", "variance", "z", "v"),
    ]


class _Backward(ctypes.Structure):
    _fields_ = [
        ("structure", ctypes.c_int32),
        ("fixed_mean", ctypes.c_int32),
        *_SIZES,
        *_addresses("y_pred", "y", "observed", "z", "v"),
        *_addresses("mahalanobis_bar", "log_scale_bar", "mean_bar", "y_pred_bar"),
    ]


class _Threads(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int), *_addresses("submit", "scheduler")]


def forward(bytes_of_a_number: int, threads: int, *fields: int) -> None:
    """Call it; `fields` are those of `kmvn_forward` in their order, 0 for NULL."""
    _call("forward", bytes_of_a_number, threads, _Forward(*fields))


def backward(bytes_of_a_number: int, threads: int, *fields: int) -> None:
    """Call it; `fields` are those of `kmvn_backward` in their order, 0 for NULL."""
    _call("backward", bytes_of_a_number, threads, _Backward(*fields))


def _call(which: str, bytes_of_a_number: int, threads: int, arguments: ctypes.Structure) -> None:
    handle = _native.library().handle
    assert handle is not None  # `supports` was asked
    function = getattr(handle, f"kmvn_elliptical_{which}_f{8 * bytes_of_a_number}")
    failure = function(ctypes.byref(arguments), _Threads(threads))
    assert failure == 0, "the library does not know this structure"
