"""Names: of classes in snake case, of targets that have none."""

from __future__ import annotations

import re

__all__ = ["to_snake_case"]


def to_snake_case(name: str) -> str:
    """The snake case of a class name.

    >>> to_snake_case("PrecisionCholesky")
    'precision_cholesky'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
