"""The inputs that move spreads and correlations most, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

from keras_mvn.report._format import joined, number

__all__ = ["Driver"]

LEAST = 0.1
"""Share of the spread of a quantity below which an input is not mentioned."""

MOST = 5
"""Maximum number of inputs mentioned of each quantity."""


@final
@dataclass(frozen=True)
class Driver:
    """How much of the spread of a quantity over the rows is owed to each input.

    Args:
        quantity: its name, such as "stddev of a".
        spread: its standard deviation over the rows.
        inputs: (input, spread owed to it), the largest first.

    """

    quantity: str
    spread: float
    inputs: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """Read what `fit.json` keeps."""
        inputs = tuple((str(name), float(value)) for name, value in entry["inputs"])
        return cls(str(entry["quantity"]), float(entry["spread"]), inputs)

    @property
    def mentioned(self) -> Sequence[tuple[str, float]]:
        """The inputs that matter."""
        return [one for one in self.inputs if one[1] >= LEAST * self.spread > 0.0][:MOST]

    @property
    def sentence(self) -> str:
        """What moves the quantity, in words."""
        found = self.mentioned
        if not found:
            return f"No input moves the {self.quantity} by much; it is nearly the same in all rows."
        named = joined([f"{name} ({number(value, 2)})" for name, value in found[:3]])
        return (
            f"The {self.quantity} varies by {number(self.spread, 2)} between rows, above all with "
            f"{named}."
        )
