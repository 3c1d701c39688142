"""The result of `evaluate`: scores by name, and a printed table."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, final

from keras_mvn._core.json_values import json_value
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array

__all__ = ["Evaluation", "Score"]

WIDTH = 100
"""Width of the printed table; columns of targets that do not fit are only in `to_frame`."""

LISTED = 6
"""Number of targets whose units are printed."""


@final
@dataclass(frozen=True)
class Score:
    """One row of an `Evaluation`: None if a number does not apply, NaN if no row contributes."""

    mean: float
    """Mean over rows; for scores of single targets, over rows and observed targets."""
    standard_error: float
    """Standard error of the mean, over rows."""
    unit: str
    """Unit of the mean."""
    per_target: dict[str, float] | None = None
    """Mean of each target, by name."""
    per_target_standard_error: dict[str, float] | None = None
    """Standard error of the mean of each target, by name."""
    per_target_unit: str | None = None
    """Unit of the means per target."""
    reference: float | None = None
    """Mean of the reference."""
    difference: float | None = None
    """Difference mean − reference."""
    difference_standard_error: float | None = None
    """Standard error of the difference, over the same rows."""
    skill: float | None = None
    """Skill 1 − mean/reference, for scores whose best value is 0."""
    skill_standard_error: float | None = None
    """Standard error of the skill, over the same rows."""


@final
class Evaluation(Mapping[str, Score]):
    """The scores computed by `keras_mvn.scores.evaluate`, by name.

    A mapping from the names of scores to `Score`: `evaluation["nll"].mean`. It prints as a table.
    """

    def __init__(
        self,
        scores: Mapping[str, Score],
        rows: int,
        target_names: tuple[str, ...],
        target_scale: Array,
        scale_name: str,
    ) -> None:
        self._scores = dict(scores)
        self.rows = rows
        """Number of evaluated rows, which are those with an observed value."""
        self.target_names = target_names
        self.target_scale = target_scale
        """Units in which targets are compared and averaged, (d,)."""
        self.scale_name = scale_name
        """Name of these units."""

    def __getitem__(self, name: str) -> Score:
        try:
            return self._scores[name]
        except KeyError:
            raise KeyError(
                f"There is no score {name!r}. The scores are {list(self._scores)}."
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    # --- export ----------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return everything as values that JSON supports, with None for NaN."""
        scores = {
            name: {field.name: getattr(score, field.name) for field in fields(Score)}
            for name, score in self.items()
        }
        found = {
            "rows": self.rows,
            "target_names": list(self.target_names),
            "target_scale": self.target_scale.tolist(),
            "scores": scores,
        }
        return dict(json_value(found))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per score and one column per number.

        The columns are `mean`, `standard_error` and `unit`; with a reference also `reference`,
        `difference`, `difference_standard_error`, `skill` and `skill_standard_error`; and
        `<target>_mean` and `<target>_standard_error` for every target.

        Raises:
            ImportError: pandas is not installed.

        """
        pandas = require("pandas", "to_frame")
        alone = [f.name for f in fields(Score) if not f.name.startswith("per_target")]
        kept = alone if self._has_reference() else alone[: alone.index("reference")]
        columns: dict[str, list[Any]] = {
            name: [getattr(score, name) for score in self.values()] for name in kept
        }
        for target in self.target_names:
            for suffix, name in (
                ("mean", "per_target"),
                ("standard_error", "per_target_standard_error"),
            ):
                columns[f"{target}_{suffix}"] = [
                    (getattr(score, name) or {}).get(target) for score in self.values()
                ]
        frame = pandas.DataFrame(columns, index=pandas.Index(list(self), name="score"))
        numeric = [name for name in columns if name != "unit"]
        return frame.astype(dict.fromkeys(numeric, "float64"))

    # --- printed table ---------------------------------------------------------------------------

    def __str__(self) -> str:
        cells, shown = self._table(WIDTH)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        left = {0, cells[0].index("unit")}
        lines = [
            "  ".join(
                cell.ljust(width) if i in left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        notes = (line for note in self._notes(shown) for line in textwrap.wrap(note, WIDTH))
        return "\n".join([*lines, "", *notes])

    def __repr__(self) -> str:
        return (
            f"Evaluation(rows={self.rows}, event_size={len(self.target_names)}, "
            f"scores={list(self._scores)})"
        )

    def _repr_html_(self) -> str:
        cells, shown = self._table(2 * WIDTH)
        lines = [
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for tag, row in zip(["th", *["td"] * len(self)], cells, strict=True)
        ]
        notes = "<br>".join(map(html.escape, self._notes(shown)))
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table><p>{notes}</p>"

    def _has_reference(self) -> bool:
        return any(score.reference is not None for score in self.values())

    def _table(self, width: int) -> tuple[list[list[str]], int]:
        """Return the cells, headings first, and the number of target columns that fit."""
        columns = [
            ["score", *self],
            ["mean", *(_number(s.mean) for s in self.values())],
            ["± s.e.", *(_error(s.standard_error) for s in self.values())],
            ["unit", *(s.unit for s in self.values())],
        ]
        if self._has_reference():
            columns += [
                ["reference", *(_number(s.reference) for s in self.values())],
                ["difference", *(_number(s.difference) for s in self.values())],
                ["± s.e.", *(_error(s.difference_standard_error) for s in self.values())],
                ["skill", *(_number(s.skill) for s in self.values())],
                ["± s.e.", *(_error(s.skill_standard_error) for s in self.values())],
            ]
        shown = 0
        if any(s.per_target for s in self.values()):
            for target in self.target_names:
                values = [(s.per_target or {}).get(target) for s in self.values()]
                column = [target, *map(_number, values)]
                if sum(2 + max(map(len, c)) for c in [*columns, column]) - 2 > width:
                    break
                columns.append(column)
                shown += 1
        return [list(row) for row in zip(*columns, strict=True)], shown

    def _notes(self, shown: int) -> list[str]:
        d, alone = len(self.target_names), any(s.per_target for s in self.values())
        notes = [
            f"{self.rows} rows, {d} target{'s' if d > 1 else ''}. Lower is better; coverages "
            "should equal their level."
        ]
        if self.scale_name != "unit of y":
            scales = list(zip(self.target_names, self.target_scale, strict=True))
            listed = ", ".join(f"{name} {_number(t)}" for name, t in scales[:LISTED])
            notes.append(f"{self.scale_name}: {listed}{', …' if d > LISTED else ''}.")
        if alone and shown:
            notes.append(
                "Target columns are in the units of y; NLL is in nats, coverage is a share."
            )
        if alone and shown < d:
            notes.append(f"{d - shown} more target columns: see to_frame().")
        return notes


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
