"""Measured targets given on the command line, as numbers or as columns of the table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.tables import Preprocessing, Table
from keras_mvn_cli._console import RefusalError

__all__ = ["Known", "parsed"]


@final
@dataclass(frozen=True)
class Known:
    """Measured targets: each maps to a number, or to the column that holds its values."""

    numbers: Mapping[str, float]
    sources: Mapping[str, str]

    @property
    def columns(self) -> list[str]:
        """Names of the columns that hold measured values."""
        return list(self.sources.values())

    def values(self, batch: Any, preprocessing: Preprocessing) -> dict[str, Array]:
        """Return target → (rows,), NaN where it was not measured."""
        found = {target: np.full(batch.num_rows, number) for target, number in self.numbers.items()}
        if self.sources:
            columns = preprocessing.observed(batch, self.columns)
            found |= dict(zip(self.sources, columns.T, strict=True))
        return found


def parsed(given: Sequence[str], targets: Sequence[str], table: Table) -> Known:
    """Parse `--given a=1.2 --given b=@column`, or `--given a=1.2,b=@column`.

    Raises:
        RefusalError: a target or column is unknown, a target is given twice, all targets are given,
            or a value is not a number.

    """
    numbers: dict[str, float] = {}
    sources: dict[str, str] = {}
    for entry in (part for text in given for part in _entries(text, targets)):
        target, _, value = entry.rpartition("=")
        if target not in targets:
            raise RefusalError(
                f"--given {entry}: expected TARGET=VALUE with one of the targets "
                f"{', '.join(targets)}; repeat --given for several."
            )
        if target in numbers or target in sources:
            raise RefusalError(f"--given {entry}: {target} was given before.")
        if value.startswith("@"):
            if value[1:] not in table.columns:
                raise RefusalError(f"--given {entry}: {table.path} has no column {value[1:]!r}.")
            sources[target] = value[1:]
            continue
        try:
            numbers[target] = float(value)
        except ValueError:
            point = value.replace(",", ".")
            hint = f"write @{value} for a column"
            if re.fullmatch(r"[+-]?\d*,\d+", value):
                hint = f"its decimal mark is a point: {target}={point}"
            raise RefusalError(f"--given {entry}: {value!r} is not a number; {hint}.") from None
        if not np.isfinite(numbers[target]):
            raise RefusalError(f"--given {entry}: the value must be finite.")
    if len(numbers) + len(sources) == len(targets):
        raise RefusalError("--given names every target: nothing is left to predict.")
    return Known(numbers, sources)


def _entries(text: str, targets: Sequence[str]) -> list[str]:
    """Split `a=1.2,b=@column` into entries; names of targets and columns may contain commas."""
    names = "|".join(map(re.escape, sorted(targets, key=len, reverse=True)))
    if text.rpartition("=")[0] in targets or not re.match(rf"(?:{names})=", text):
        return [text]
    return re.findall(rf"(?:{names})=.*?(?=,\s*(?:{names})=|$)", text)
