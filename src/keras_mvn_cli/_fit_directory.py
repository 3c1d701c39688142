"""A fit directory: its format, and how it is created completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from keras_mvn_cli._console import RefusalError

__all__ = [
    "FIT",
    "FORMAT",
    "FitFolder",
    "fitted",
    "identity",
    "is_same",
]

FORMAT = 1
"""Format version of fit directories."""

FIT = "fit.json"
"""The file that identifies a fit directory."""


@final
@dataclass(frozen=True)
class FitFolder:
    """A fit directory under construction: `DIR.partial` until it is complete, then `DIR`.

    Args:
        target: Path, the final location of the fit directory.

    """

    target: Path

    def __post_init__(self) -> None:
        if self.target.name in ("", ".."):  # `.` and `x/..` have no name to append `.partial` to
            object.__setattr__(self, "target", self.target.resolve())

    @property
    def partial(self) -> Path:
        """The directory while it is under construction."""
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def work(self) -> Path:
        """The folder for files that only the fit itself and `--resume` need."""
        return self.partial / "work"

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse to touch existing files, unless the options say what to do with them.

        Raises:
            RefusalError: existing files are in the way.

        """
        target = self.target
        if target.resolve() == Path.cwd():
            raise RefusalError(
                f"--out {target} is the folder you are in; give a folder of its own, such as "
                f"{target / 'fit'}."
            )
        _require_writable(target)
        try:
            there = target.exists() and (not target.is_dir() or any(target.iterdir()))
            unfinished = self.partial.exists()
        except OSError as error:
            raise RefusalError(f"--out {target}: {error.strerror}") from error
        if there and not overwrite:
            raise RefusalError(
                f"--out {target} exists and is not empty; --overwrite replaces an earlier fit."
            )
        if there and not (target / FIT).is_file():
            raise RefusalError(f"--out {target} is not a fit directory; it will not be replaced.")
        if unfinished and not (resume or overwrite):
            raise RefusalError(
                f"{self.partial} holds an unfinished fit: --resume continues it, --overwrite "
                "starts over."
            )

    def begin(self) -> None:
        """Create the folders.

        Raises:
            RefusalError: they cannot be created.

        """
        shutil.rmtree(self.partial, ignore_errors=True)
        try:
            self.work.mkdir(parents=True)
        except OSError as error:
            raise RefusalError(f"--out {self.target}: {error.strerror}") from error

    def discard(self) -> None:
        """Delete the unfinished directory."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Move the completed directory into place."""
        shutil.rmtree(self.work)
        from keras_mvn._core.files import put_in_place

        put_in_place(self.partial, self.target)


def _require_writable(target: Path) -> None:
    """Refuse a location where no folder can be created, before anything is read."""
    above = target.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise RefusalError(f"--out {target}: {above} is not a directory.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RefusalError(f"--out {target}: permission denied in {above}.")


def identity(path: Path) -> dict[str, Any]:
    """Return what identifies a file wherever it is: its size in bytes, and a hash."""
    with path.open("rb") as file:
        return {
            "size": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def is_same(path: Path, known: dict[str, Any] | None) -> bool:
    """Return whether a file has a known `identity`; it is hashed only if the sizes match."""
    if known is None or path.stat().st_size != known["size"]:
        return False
    return identity(path) == known


def fitted(folder: Path) -> dict[str, Any]:
    """Return `fit.json` of a fit directory.

    Raises:
        RefusalError: it is not a fit directory, or one written by a newer version.

    """
    try:
        about: dict[str, Any] = json.loads((folder / FIT).read_text(encoding="utf-8"))
    except OSError as error:
        partial = FitFolder(folder).partial.exists()
        hint = " The fit is unfinished; continue it: `keras-mvn fit … --resume`." if partial else ""
        raise RefusalError(
            f"{folder} is not a directory made by `keras-mvn fit`: it has no {FIT}.{hint}"
        ) from error
    except ValueError as error:
        raise RefusalError(f"{folder / FIT} is damaged: {error}") from error
    if about["format"] > FORMAT:
        raise RefusalError(f"{folder} was written by a newer keras-mvn; upgrade keras-mvn.")
    return about
