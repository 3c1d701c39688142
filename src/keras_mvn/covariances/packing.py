"""Packing of triangular matrices into flat vectors and back, by static gathers.

The strict lower triangle of a d × d matrix is packed row by row, ``[(1, 0), (2, 0), (2, 1),
(3, 0), …]``, with k = d(d − 1)/2 entries. The index tables are computed once per d. The gradients
of these gathers are gathers too, so no scatter is ever needed.
"""

from __future__ import annotations

import functools

import numpy as np

from keras_mvn._core.numeric import merge_last_axes, split_last_axis, static_gather
from keras_mvn._core.types import Tensor

__all__ = ["diagonal", "pack_lower", "pack_strict_lower", "unpack_lower", "unpack_strict_lower"]

IndexTables = tuple[np.ndarray, np.ndarray]


def _tables(d: int, rows: np.ndarray, columns: np.ndarray) -> IndexTables:
    """Return the flat index of each packed entry, and the packed index (or −1) of each flat one."""
    of_entry = (rows * d + columns).astype("int32")
    of_matrix = np.full(d * d, -1, "int32")
    of_matrix[of_entry] = np.arange(len(of_entry), dtype="int32")
    return of_entry, of_matrix


@functools.lru_cache(maxsize=64)
def _triangle_tables(d: int, offset: int) -> IndexTables:
    return _tables(d, *np.tril_indices(d, offset))


@functools.lru_cache(maxsize=64)
def _diagonal_tables(d: int) -> IndexTables:
    return _tables(d, np.arange(d), np.arange(d))


def _pack(matrix: Tensor, tables: IndexTables) -> Tensor:
    of_entry, of_matrix = tables
    return static_gather(merge_last_axes(matrix), of_entry, of_matrix)


def _unpack(packed: Tensor, event_size: int, tables: IndexTables) -> Tensor:
    of_entry, of_matrix = tables
    flat = static_gather(packed, of_matrix, of_entry)
    return split_last_axis(flat, event_size, event_size)


def pack_strict_lower(matrix: Tensor) -> Tensor:
    """Return the entries below the diagonal, row by row: (..., d, d) → (..., d(d − 1)/2).

    >>> import numpy as np
    >>> pack_strict_lower(np.array([[9.0, 9.0, 9.0], [1.0, 9.0, 9.0], [2.0, 3.0, 9.0]]))
    array([1., 2., 3.])
    """
    return _pack(matrix, _triangle_tables(matrix.shape[-1], -1))


def unpack_strict_lower(packed: Tensor, event_size: int) -> Tensor:
    """Return the strictly lower triangular matrix: (..., d(d − 1)/2) → (..., d, d).

    >>> import numpy as np
    >>> unpack_strict_lower(np.array([1.0, 2.0, 3.0]), 3)
    array([[0., 0., 0.],
           [1., 0., 0.],
           [2., 3., 0.]])
    """
    return _unpack(packed, event_size, _triangle_tables(event_size, -1))


def pack_lower(matrix: Tensor) -> Tensor:
    """Return the entries on and below the diagonal, by row: (..., d, d) → (..., d(d + 1)/2)."""
    return _pack(matrix, _triangle_tables(matrix.shape[-1], 0))


def unpack_lower(packed: Tensor, event_size: int) -> Tensor:
    """Return the lower triangular matrix: (..., d(d + 1)/2) → (..., d, d)."""
    return _unpack(packed, event_size, _triangle_tables(event_size, 0))


def diagonal(matrix: Tensor) -> Tensor:
    """Return the diagonal: (..., d, d) → (..., d)."""
    return _pack(matrix, _diagonal_tables(matrix.shape[-1]))
