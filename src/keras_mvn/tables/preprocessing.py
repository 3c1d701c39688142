"""Reproducible conversion of the columns of a table to the inputs and targets of a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from keras_mvn._core.types import Array
from keras_mvn.tables.cells import Cells
from keras_mvn.tables.dates import DateReading
from keras_mvn.tables.deciding import GROWS, Decision
from keras_mvn.tables.encoders import ENCODERS, Encoder, encoder_of
from keras_mvn.tables.errors import LONGEST, CellError, TableError, cut, listed
from keras_mvn.tables.obstacles import obstacle
from keras_mvn.tables.profiling import Profile
from keras_mvn.tables.table import Table

__all__ = ["Preprocessing", "chunk_of", "fit_preprocessing", "share_of"]

FORMAT = 2
"""Version of the file format that `save` writes."""


@final
@dataclass(frozen=True)
class Preprocessing:
    """Conversion of new tables to the arrays that the network was trained on.

    Args:
        encoders: encoders of the input columns, in order.
        targets: names of the columns to predict.
        cells: rules for reading cells.

    """

    encoders: tuple[Encoder, ...]
    targets: tuple[str, ...]
    cells: Cells

    @property
    def columns(self) -> list[str]:
        """Names of the columns that a table must have for prediction."""
        return [encoder.column for encoder in self.encoders]

    @property
    def names(self) -> list[str]:
        """Names of the network's inputs."""
        return [name for encoder in self.encoders for name in encoder.names]

    def check(self, table: Table, targets: bool = False) -> None:
        """Check that a table has the required columns.

        Raises:
            TableError: columns are missing; the message names them.

        """
        wanted = [*self.columns, *(self.targets if targets else ())]
        absent = [name for name in wanted if name not in table.columns]
        if absent:
            many = len(absent) > 1
            raise TableError(
                f"{table.path} does not fit the model: the column{'s' if many else ''} "
                f"{listed(absent)} {'are' if many else 'is'} missing."
                f"{table.hint(absent) or f' Its columns are {listed(table.columns)}.'}"
            )

    def in_units(self, inputs: Array) -> Array:
        """Return inputs (n, len(names)) in the units of their columns, float64."""
        units = [
            encoder.units if name in encoder.value_names else (0.0, 1.0)
            for encoder in self.encoders
            for name in encoder.names
        ]
        center, scale = np.array(units).reshape(-1, 2).T
        return center + scale * np.asarray(inputs, np.float64)

    def inputs(self, batch: Any) -> np.ndarray:
        """Return the inputs (n, len(names)), float32, of a `pyarrow` batch or table.

        Raises:
            TableError: cells are of a different kind than in training, or numbers are too far from
                those in training.

        """
        return self.inputs_and_gaps(batch)[0]

    def inputs_and_gaps(self, batch: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return what `inputs` does, and for each column a mask of its missing cells, imputed."""
        parts, gaps = [], {}
        for encoder in self.encoders:
            values, gaps[encoder.column] = self._encoded(batch, encoder)
            parts.append(values)
        return np.concatenate(parts, axis=1), gaps

    def _encoded(self, batch: Any, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
        column = chunk_of(batch, encoder.column)
        with np.errstate(over="ignore"):
            wide, missing = encoder.encode(column, self.cells)
            values = wide.astype(np.float32)
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).all(axis=1)))
            raise CellError(
                f"column {encoder.column!r} holds {str(column[row].as_py())[:LONGEST]}",
                row,
                ": too far from the training rows for prediction.",
            )
        return values, missing

    def observed(self, batch: Any, targets: Sequence[str] | None = None) -> Array:
        """Return the targets (n, d), float64, NaN where they were not observed.

        Raises:
            TableError: a target is not a finite number.

        """
        names = self.targets if targets is None else targets
        return np.stack([_numbers(batch, name, self.cells) for name in names], axis=1)

    def shown(self, batch: Any) -> dict[str, np.ndarray]:
        """Return the input columns for display: numbers as they are, everything else as text."""
        return {e.column: e.shown(chunk_of(batch, e.column), self.cells) for e in self.encoders}

    def unknown_categories(self, batch: Any) -> dict[str, list[str]]:
        """Return a mapping from columns to their categories that were not in the training rows."""
        found = {e.column: e.unknown(chunk_of(batch, e.column), self.cells) for e in self.encoders}
        return {column: texts for column, texts in found.items() if texts}

    @property
    def complete(self) -> tuple[str, ...]:
        """Names of the columns that had no gaps in training.

        Where they have some later, they are imputed, but the network has not learned at what cost.
        """
        return tuple(encoder.column for encoder in self.encoders if not encoder.indicator)

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        config = {
            "format": FORMAT,
            "targets": list(self.targets),
            **_config_of(self.cells),
            "inputs": [encoder.get_config() for encoder in self.encoders],
        }
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a file that `save` wrote.

        Raises:
            TableError: the file is of a newer version.

        """
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["format"] > FORMAT:
            raise TableError(f"{path} was written by a newer keras-mvn; upgrade keras-mvn.")
        return cls(
            tuple(encoder_of(entry) for entry in config["inputs"]),
            tuple(config["targets"]),
            _cells_of(config),
        )


def _config_of(cells: Cells) -> dict[str, Any]:
    return {
        "decimal": cells.decimal,
        "missing_values": list(cells.missing),
        "thousands": cells.thousands,
        "strip": list(cells.strip),
        "accounting": cells.accounting,
        "limits_as_missing": cells.limits_as_missing,
        "date_formats": list(cells.dates.formats),
        "day_first": cells.dates.day_first,
    }


def _cells_of(config: Mapping[str, Any]) -> Cells:
    # In files of format 1, these were missing among categories, too.
    earlier = ("NA", "None", "none", "?", "-", ".") if config["format"] < 2 else ()
    return Cells(
        config["decimal"],
        (*config["missing_values"], *earlier),
        config.get("thousands", ""),
        tuple(config.get("strip", ())),
        config.get("accounting", False),
        config.get("limits_as_missing", False),
        DateReading(tuple(config.get("date_formats", ())), config.get("day_first")),
    )


def fit_preprocessing(
    decisions: Sequence[Decision],
    profiles: Mapping[str, Profile],
    training: Any,
    targets: Sequence[str],
    cells: Cells,
) -> tuple[Preprocessing, list[Decision]]:
    """Fit encoders to (a sample of) the training rows; also return the final decisions.

    A column that is constant in the training rows is dropped, which the returned decisions reflect.

    Raises:
        TableError: no input is left.

    """
    encoders: list[Encoder] = []
    final_decisions: list[Decision] = []
    for decision in decisions:
        if decision.kind == "dropped":
            final_decisions.append(decision)
            continue
        profile = profiles[decision.column]
        gaps = profile.gaps(decision.kind)
        encoder = ENCODERS[decision.kind].fit(
            decision, chunk_of(training, decision.column), cells, gaps > 0
        )
        if encoder is None:
            why = "always the same in the training rows" if decision.trend else GROWS
            final_decisions.append(Decision(decision.column, "dropped", why))
            continue
        encoders.append(encoder)
        final_decisions.append(_told(decision, encoder, gaps, profile.rows))
    if not encoders:
        reasons = [f"{d.column}: {d.advice or d.why}" for d in final_decisions]
        raise TableError(
            "no input is left: every column is a target or was dropped"
            f"{f' ({reasons[0]})' if reasons else ''}."
        )
    return Preprocessing(tuple(encoders), tuple(targets), cells), final_decisions


def _told(decision: Decision, encoder: Encoder, gaps: int, rows: int) -> Decision:
    """Add the number of inputs and the treatment of missing values to a decision."""
    count = len(encoder.value_names)
    why = decision.why
    if decision.kind not in ("number", "boolean"):
        why += f" → {count} inputs"
    if not decision.trend:
        why += "; without its trend, which --trend keeps"
    if gaps:
        why += f"; {share_of(gaps, rows)} missing: imputed, with an indicator"
    return Decision(decision.column, decision.kind, why, decision.form)


def share_of(count: int, rows: int) -> str:
    """Format a share in percent, or as a count if it is below 1 %."""
    share = 100 * count / rows
    return f"{share:.0f} %" if share >= 1 else f"{count} of {rows}"


def chunk_of(batch: Any, name: str) -> Any:
    """Return a column as one `pyarrow` array, even if it has several chunks."""
    column = batch.column(name)
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
        if hasattr(column, "chunks"):  # older pyarrow: still chunked
            column = column.chunk(0)
    return column


def _numbers(batch: Any, name: str, cells: Cells) -> Array:
    column = chunk_of(batch, name)
    numbers, unreadable = cells.numbers(column)
    if unreadable.any() or np.isinf(numbers).any():
        row = int(np.argmax(unreadable | np.isinf(numbers)))
        text = str(column[row].as_py())
        way_out = obstacle([text], cells.numerals)
        raise CellError(
            f"column {name!r} must hold finite numbers; found {cut(text)}",
            row,
            f"; {way_out}" if way_out else ".",
        )
    return numbers
