"""What is unusual in the rows of a table that a model predicts, compared with its training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from keras_mvn.tables.errors import CellError, TableError, cut
from keras_mvn_cli._console import Output

__all__ = ["MOST", "Findings"]


@final
class Findings:
    """Gaps where training rows had none, and categories that they did not have.

    Args:
        output: Output, receives the warnings.
        strict: bool, whether a finding is an error.

    """

    def __init__(self, output: Output, strict: bool) -> None:
        self.output, self._strict = output, strict
        self._gaps: Counter[str] = Counter()
        self._complete: Sequence[str] = ()
        self._stand_ins = False
        self._unknown: dict[str, list[str]] = {}
        self._far: dict[str, list[str]] = {}
        self._far_rows: Counter[str] = Counter()
        self._outside: list[str] = []
        self._rows = 0
        self._notes: list[str] = []

    def remember(self, note: str) -> None:
        """Tell this at the end, too."""
        self._notes.append(note)

    def add_gaps(
        self, gaps: Mapping[str, np.ndarray], complete: Sequence[str], stand_ins: bool
    ) -> None:
        """Add the missing cells of further rows.

        Args:
            gaps: column → mask of its missing cells.
            complete: columns that had none in training.
            stand_ins: whether values of training rows stand in for theirs.

        Raises:
            CellError: `strict`, and a cell is missing in such a column.

        """
        self._complete, self._stand_ins = complete, stand_ins
        for column, missing in gaps.items():
            self._gaps[column] += int(missing.sum())
            if self._strict and column in complete and missing.any():
                raise CellError(
                    f"column {column!r} has no value",
                    int(np.argmax(missing)),
                    ", and no training row was without one; --strict refuses to impute it.",
                )

    def add_unknown(self, unknown: Mapping[str, Sequence[str]]) -> None:
        """Add columns with categories that were absent or too rare in training.

        Raises:
            TableError: `strict`, and there is one.

        """
        for column, texts in unknown.items():
            if self._strict:
                raise TableError(
                    f"column {column!r} holds {cut(texts[0])}, which was absent or too rare in "
                    "training; --strict refuses it."
                )
            if column not in self._unknown:
                self.output.warn(
                    f"{column}: values such as {cut(texts[0])} were absent or too rare in "
                    "training; they count as none of the known ones, and these predictions may be "
                    "too sure"
                )
                self._unknown[column] = []
            known = self._unknown[column]
            known += [text for text in texts if text not in known][: MOST - len(known)]

    def add_far(self, column: str, texts: Sequence[str], count: int, first: int) -> None:
        """Add numbers far outside the range of the training rows, in further rows.

        Args:
            column: name of the column.
            texts: descriptions of the first of them, at most `MOST`.
            count: how many there are.
            first: row of the first one.

        Raises:
            CellError: `strict`.

        """
        if self._strict:
            raise CellError(f"column {column!r} holds {texts[0]}", first, "; --strict refuses it.")
        known = self._far.setdefault(column, [])
        known += texts[: MOST - len(known)]
        self._far_rows[column] += count

    def add_outside(self, texts: Sequence[str]) -> None:
        """Add inputs of which more values than by chance are beyond the training rows.

        Raises:
            TableError: `strict`, and there is one.

        """
        if self._strict and texts:
            raise TableError(f"{texts[0]}; --strict refuses to extrapolate.")
        self._outside += texts

    @property
    def imputed(self) -> dict[str, int]:
        """Column → number of missing cells, if there were none in training or now all are."""
        return {
            column: count
            for column, count in self._gaps.items()
            if count and (column in self._complete or count == self._rows)
        }

    def tell(self, rows: int) -> None:
        """Warn of imputed cells, once all rows were read."""
        self._rows = rows
        for note in self._notes:
            self.output.note(note)
        for column, texts in self._far.items():
            others = self._far_rows[column] - MOST_FAR
            more = f", and {others} more rows" if others > 0 else ""
            self.output.warn(
                f"{column}: {'; '.join(texts[:MOST_FAR])}{more}. Such inputs are limited to the "
                "range that was seen, and these predictions widened"
            )
        for text in self._outside[:MOST_FAR]:
            self.output.warn(f"{text}. Predictions there are extrapolations, and may be too sure")
        if len(self._outside) > MOST_FAR:
            self.output.warn(
                f"{len(self._outside) - MOST_FAR} more inputs are beyond what was seen"
            )
        for column, count in self.imputed.items():
            complete = column in self._complete
            trained = "no training row was" if complete else "now all rows are"
            then = "it is imputed, and these predictions claim to be surer than they are"
            if complete and self._stand_ins:
                then = "values of similar training rows stand in, and widen these predictions"
            self.output.warn(
                f"{column}: {count} of {rows} rows have no value, and {trained} without one; {then}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON values, with empty ones."""
        return {
            "imputed": self.imputed,
            "unknown_categories": self._unknown,
            "far_out": self._far,
            "outside": self._outside,
        }


MOST = 20
"""Maximum number of unknown categories, or of cells, listed for a column."""

MOST_FAR = 3
"""Maximum number of cells far out that a warning describes."""
