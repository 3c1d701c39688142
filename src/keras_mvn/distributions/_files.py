"""Batches of distributions, joined and in files."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from keras_mvn.distributions import _storage
from keras_mvn.distributions._arithmetic import Arithmetic

__all__ = ["Files"]


class Files(Arithmetic):
    """Distributions that can be joined, saved and loaded."""

    format: ClassVar[str]
    """Name of the class in files."""

    _formats: ClassVar[dict[str, type[Files]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "format" in vars(cls):
            Files._formats[cls.format] = cls

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """Join batches along their first axis, as `numpy.concatenate` joins arrays.

        Args:
            batches: at least one batch of distributions, all of the same targets.

        Raises:
            ValueError: there is no batch, one is a single distribution, or targets or further
                batch axes differ.

        """
        joined = list(batches)
        if not joined or not all(one.batch_shape for one in joined):
            raise ValueError(
                "concatenate takes at least one batch of distributions. A single distribution has "
                "no axis to join along; use `flatten()` to add one."
            )
        first = joined[0]
        for one in joined[1:]:
            if (one.event_size, one.target_names) != (first.event_size, first.target_names):
                raise ValueError(f"concatenate: {one!r} does not have the targets of {first!r}.")
            if one.batch_shape[1:] != first.batch_shape[1:]:
                raise ValueError(
                    f"concatenate: batch shapes {one.batch_shape} and {first.batch_shape} differ "
                    "beyond the first axis."
                )
        return first._joined(joined)

    @abc.abstractmethod
    def _joined(self, batches: Sequence[Self]) -> Self:
        """Join batches that fit together, of which this is the first."""

    def save(self, path: Any) -> None:
        """Save distributions and target names to a `.npz` or `.parquet` file.

        An existing file is replaced only once the new one is complete.

        Raises:
            ValueError: the suffix is unknown, or a Parquet file is requested without exactly one
                batch axis, or of a mixture.
            ImportError: a Parquet file is requested, and pyarrow is not installed.

        """
        _storage.save(self._state(), path)

    @classmethod
    def load(cls, path: Any) -> Self:
        """Load distributions from a file written by `save`.

        `Distribution.load` loads those of every class, a subclass only its own.

        Raises:
            ValueError: the suffix is unknown, or the file was not written by `save`, or holds
                distributions of another class.
            ImportError: it is a Parquet file, and pyarrow is not installed.

        """
        known = {name: kind.__name__ for name, kind in cls._formats.items()}
        state = _storage.load(path, known, cls.__name__)
        kind = cls._formats[state.header["format"]]
        if not issubclass(kind, cls):
            raise ValueError(
                f"{path} holds a {kind.__name__}; load it with {kind.__name__}.load, or with "
                "Distribution.load."
            )
        return kind._from_state(state)

    @abc.abstractmethod
    def _state(self) -> _storage.State:
        """What a file holds of these distributions."""

    @classmethod
    @abc.abstractmethod
    def _from_state(cls, state: _storage.State) -> Self:
        """The distributions that a file holds."""
