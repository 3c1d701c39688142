"""Atomic writing of files and folders.

Everything that the library or the command-line tool writes goes through this module. New content
is written next to its destination and moved into place at the end: readers never see partial
content, and an error, a full disk or Ctrl-C leaves the previous content untouched.
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
    """Yield a path for a new file or folder, which replaces `target` at the end.

    The path has the name of `target`, in a folder next to it, so that suffixes keep their meaning
    and files get the permissions set by the umask. After an error, the old content is still there.

    Args:
        target: path of a file or a folder, which may exist; its parent must exist.

    Raises:
        OSError: the parent is not writable.

    """
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        fresh = Path(folder, target.name)
        yield fresh
        put_in_place(fresh, target)


def put_in_place(fresh: Path, target: Path) -> None:
    """Move a file or a folder to `target`, on the same file system, replacing what is there.

    A file is replaced in one step. A folder is moved aside first, and moved back if the new one
    cannot be moved into place.
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
    """Write a JSON file, indented and in UTF-8.

    Raises:
        ValueError: values contain NaN or infinity, which JSON does not support.

    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as fresh:
        fresh.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8."""
    return json.loads(path.read_text(encoding="utf-8"))
