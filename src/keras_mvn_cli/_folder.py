"""A fit directory: what is in it, and how it comes about whole or not at all."""

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
"""Version of what a fit directory holds."""

FIT = "fit.json"
"""The file by which a fit directory is known."""


@final
@dataclass(frozen=True)
class FitFolder:
    """`DIR.partial` until everything is there, then `DIR`.

    Args:
        target: where the fit directory is to be.

    """

    target: Path

    def __post_init__(self) -> None:
        if self.target.name in ("", ".."):  # `.` and `x/..` have no name to put `.partial` behind
            object.__setattr__(self, "target", self.target.resolve())

    @property
    def partial(self) -> Path:
        """Where it is made."""
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def work(self) -> Path:
        """For what is needed while it is made, and to resume."""
        return self.partial / "work"

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse to touch what is there already, unless it was said what to do with it.

        Raises:
            RefusalError: something is in the way.

        """
        target = self.target
        if target.resolve() == Path.cwd():
            raise RefusalError(
                f"--out {target} is the folder you are in; give one of its own, such as "
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
            raise RefusalError(f"--out {target} is not a fit directory, so it is not replaced.")
        if unfinished and not (resume or overwrite):
            raise RefusalError(
                f"{self.partial} holds an unfinished fit: --resume goes on with it, --overwrite "
                "starts anew."
            )

    def begin(self) -> None:
        """Make the folders.

        Raises:
            RefusalError: that is not possible.

        """
        shutil.rmtree(self.partial, ignore_errors=True)
        try:
            self.work.mkdir(parents=True)
        except OSError as error:
            raise RefusalError(f"--out {self.target}: {error.strerror}") from error

    def discard(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Put the directory in its place, at once."""
        shutil.rmtree(self.work)
        from keras_mvn._core.files import put_in_place

        put_in_place(self.partial, self.target)


def _require_writable(target: Path) -> None:
    """Refuse a place in which no folder can be made, before anything is read."""
    above = target.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise RefusalError(f"--out {target}: {above} is not a directory.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise RefusalError(f"--out {target}: permission denied in {above}.")


def identity(path: Path) -> dict[str, Any]:
    """What a file is known by, wherever it lies: its size in bytes, and a hash."""
    with path.open("rb") as file:
        return {
            "size": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def is_same(path: Path, known: dict[str, Any] | None) -> bool:
    """Whether it is a file whose `identity` is known; the hash is taken only if it may be."""
    if known is None or path.stat().st_size != known["size"]:
        return False
    return identity(path) == known


def fitted(folder: Path) -> dict[str, Any]:
    """`fit.json` of a fit directory.

    Raises:
        RefusalError: it is none, or one of a newer version.

    """
    try:
        about: dict[str, Any] = json.loads((folder / FIT).read_text(encoding="utf-8"))
    except OSError as error:
        partial = FitFolder(folder).partial.exists()
        hint = " Its fit is unfinished: `keras-mvn fit … --resume`." if partial else ""
        raise RefusalError(
            f"{folder} is no directory that `keras-mvn fit` made: there is no {FIT}.{hint}"
        ) from error
    except ValueError as error:
        raise RefusalError(f"{folder / FIT} is damaged: {error}") from error
    if about["format"] > FORMAT:
        raise RefusalError(f"{folder} was written by a newer keras-mvn; upgrade keras-mvn.")
    return about
