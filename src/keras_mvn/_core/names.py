"""Conversion of class names to snake case."""

from __future__ import annotations

import re

__all__ = ["to_snake_case"]


def to_snake_case(name: str) -> str:
    """Convert a class name to snake case.

    >>> to_snake_case("PrecisionCholesky")
    'precision_cholesky'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
