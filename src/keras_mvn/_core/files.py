"""Files and folders that are written whole, or not at all.

Everything that the library or the command writes goes through here. What is new is written beside
its place and moved into it at the end: a reader never finds half of it, and an error, a full disk
or ^C leaves what was there before.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["put_in_place", "read_json", "replacing", "write_json"]


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which takes the place of `target` at the end.

    It has the name of `target`, in a folder beside it, so that suffixes mean what they do and
    files get the permissions that the umask gives. After an error, what was there is still there.

    Args:
        target: a file or a folder, which may exist; its parent must.

    Raises:
        OSError: the parent cannot be written to.

    """
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        fresh = Path(folder, target.name)
        yield fresh
        put_in_place(fresh, target)


def put_in_place(fresh: Path, target: Path) -> None:
    """Move a file or a folder to `target`, on the same file system; what is there is replaced.

    A file is replaced in one step. A folder is moved aside first, and moved back if its successor
    cannot take its place.
    """
    if not target.is_dir():
        fresh.replace(target)
        return
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        replaced = Path(folder, uuid.uuid4().hex)
        target.rename(replaced)
        try:
            fresh.rename(target)
        except OSError:
            replaced.rename(target)
            raise


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file, UTF-8 and indented.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.

    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as fresh:
        fresh.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8."""
    return json.loads(path.read_text(encoding="utf-8"))
