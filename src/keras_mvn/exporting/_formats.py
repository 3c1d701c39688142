"""The contract of a format of files."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from keras_mvn._core.types import Array
from keras_mvn.exporting._serving import Serving

__all__ = ["Format"]


class Format(abc.ABC):
    """How files of one format are written and tried. Holds nothing."""

    name: ClassVar[str]
    refusals: ClassVar[dict[str, str]] = {}
    """Backends from which the format cannot be written: why, and what to do instead."""
    has_opsets: ClassVar[bool] = False
    hint: ClassVar[str]
    """For a model that the format cannot hold: what to do instead."""

    @abc.abstractmethod
    def check_path(self, path: Path) -> None:
        """Refuse a path that such files do not have, or that holds something else.

        Raises:
            ValueError: it does.

        """

    @abc.abstractmethod
    def require(self, backend: str, verify: bool) -> None:
        """Import what writing, and `run` if asked for, needs.

        Raises:
            ImportError: it is not installed.

        """

    @abc.abstractmethod
    def write(self, serving: Serving, path: Path, opset: int | None) -> None:
        """Write what is served."""

    @abc.abstractmethod
    def run(
        self, serving: Serving, path: Path, batches: list[list[Array]]
    ) -> list[dict[str, Array]]:
        """The outputs of a written file by name, for each batch, in the format's own runtime."""
