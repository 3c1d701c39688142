"""The versions of a head's output, so that later releases load earlier models."""

from __future__ import annotations

__all__ = ["check_wire_version"]


def check_wire_version(version: int, newest: int) -> None:
    """Check that a head was not saved with a later version of its output than is known.

    Raises:
        ValueError: it was, by a newer keras-mvn.

    """
    if version > newest:
        raise ValueError(
            f"This model was saved with version {version} of the head's output, by a newer "
            f"keras-mvn; this one reads versions up to {newest}. Upgrade keras-mvn."
        )
