"""A file or folder that is written whole, or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside the target to write to; it takes the target's place at the end.

    After an error, what was there is still there.
    """
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        fresh, replaced = Path(folder, target.name), Path(folder, "replaced")
        yield fresh
        if not target.is_dir():
            fresh.replace(target)
            return
        target.rename(replaced)
        try:
            fresh.rename(target)
        except OSError:
            replaced.rename(target)
            raise
