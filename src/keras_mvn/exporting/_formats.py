"""Base class of file formats."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from keras_mvn._core.types import Array
from keras_mvn.exporting._serving import Serving

__all__ = ["Format"]


class Format(abc.ABC):
    """Base class of formats, which write files and run them; formats have no state."""

    name: ClassVar[str]
    refusals: ClassVar[dict[str, str]] = {}
    """Backends that cannot write the format, with the reason and what to do instead."""
    has_opsets: ClassVar[bool] = False
    hint: ClassVar[str]
    """Advice for a model that the format does not support."""

    @abc.abstractmethod
    def check_path(self, path: Path) -> None:
        """Check that path is suitable for this format and has no other contents.

        Raises:
            ValueError: it is not suitable, or has other contents.

        """

    @abc.abstractmethod
    def require(self, backend: str, verify: bool) -> None:
        """Import the packages needed for writing and, if `verify`, for `run`.

        Raises:
            ImportError: a package is not installed.

        """

    @abc.abstractmethod
    def write(self, serving: Serving, path: Path, opset: int | None) -> None:
        """Write the model and its outputs to path."""

    @abc.abstractmethod
    def run(
        self, serving: Serving, path: Path, batches: list[list[Array]]
    ) -> list[dict[str, Array]]:
        """Run a written file in the format's own runtime; return outputs by name for each batch."""
