"""The base class of batches, which are sequences over their first batch axis."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, Self, final

__all__ = ["Batch"]


class Batch(abc.ABC):
    """A batch of objects, on whose batch axes `len`, indexing and iteration act.

    Without batch axes it is a single object, which is truthy but has no length.
    """

    @property
    @abc.abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch axes; () for a single object."""

    @abc.abstractmethod
    def _take(self, index: Any) -> Self:
        """The part of the batch at an index, slice, mask or index array on the batch axes."""

    @final
    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError(f"a single {type(self).__name__} has no length")
        return self.batch_shape[0]

    @final
    def __getitem__(self, index: Any) -> Self:
        """The part of the batch at an index, slice, mask or index array on the batch axes."""
        if not self.batch_shape:
            raise IndexError(f"a single {type(self).__name__} has no batch axis to index")
        return self._take(index)

    @final
    def __bool__(self) -> bool:
        return True  # also an empty batch, and a single object, which has no length

    @final
    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))
