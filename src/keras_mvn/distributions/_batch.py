"""What every batch of something is: a sequence over its first batch axis."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, Self, final

__all__ = ["Batch"]


class Batch(abc.ABC):
    """Things on batch axes, on which `len`, indexing and iterating act.

    Without batch axes it is a single thing: true, but without a length.
    """

    @property
    @abc.abstractmethod
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes; () for a single one."""

    @abc.abstractmethod
    def _take(self, index: Any) -> Self:
        """Those at an index, slice, mask or index array on the batch axes."""

    @final
    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError(f"a single {type(self).__name__} has no length")
        return self.batch_shape[0]

    @final
    def __getitem__(self, index: Any) -> Self:
        """Those at an index, slice, mask or index array on the batch axes."""
        if not self.batch_shape:
            raise IndexError(f"a single {type(self).__name__} has no batch axis to index")
        return self._take(index)

    @final
    def __bool__(self) -> bool:
        return True  # an empty batch, too, and a single one, which has no length

    @final
    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))
