"""Names: of classes in snake case, of targets that have none."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["target_names_of", "to_snake_case"]


def to_snake_case(name: str) -> str:
    """The snake case of a class name.

    >>> to_snake_case("PrecisionCholesky")
    'precision_cholesky'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def target_names_of(names: Sequence[str] | None, event_size: int) -> list[str]:
    """The names, or "target 0", "target 1", … where there are none."""
    return list(names or (f"target {j}" for j in range(event_size)))
