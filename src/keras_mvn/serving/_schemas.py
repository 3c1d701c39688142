"""The shapes of requests and answers of the web service, from the columns of its model."""

from collections.abc import Sequence
from typing import Annotated, Any, final

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn.tables import TableError
from keras_mvn.tables.encoders import BooleanEncoder, Encoder, NumberEncoder

__all__ = ["Schemas"]

FARTHEST = 1e30
"""Largest distance of a number from those in training, in their standard deviations."""


@final
class Schemas:
    """Pydantic models of requests and answers; columns and targets may have any names.

    Args:
        encoders: the columns of a row.
        targets: names of the targets.
        max_rows: rows of a request, at most.

    """

    def __init__(self, encoders: Sequence[Encoder], targets: Sequence[str], max_rows: int) -> None:
        pydantic = require("pydantic", "serving.create_app")
        make, field = pydantic.create_model, pydantic.Field
        self._columns = [encoder.column for encoder in encoders]
        self._targets = list(targets)
        forbid = pydantic.ConfigDict(extra="forbid")
        row = make(
            "Row", **{f"column_{i}": _cell(field, one) for i, one in enumerate(encoders)}
        )  # fmt: skip
        near = field(allow_inf_nan=False, strict=True, ge=-FARTHEST, le=FARTHEST)
        one = Annotated[float, near]
        measured = one | list[one | None]
        some = {"minProperties": 1, "maxProperties": max(len(self._targets) - 1, 0)}
        given = make(
            "Given",
            __config__={**forbid, "json_schema_extra": some},
            **{f"target_{i}": (measured, field(None, alias=t)) for i, t in enumerate(targets)},
        )
        rows = (
            list[row],  # type: ignore[valid-type]
            field(min_length=1, max_length=max_rows, description="All columns; null is missing."),
        )
        level = (
            float,
            field(0.9, strict=True, gt=0.0, lt=1.0, description="Probability of intervals."),
        )
        of_some = field(description="Measured targets: a number, or one for each row.")
        self.Predict = make("Predict", __config__=forbid, rows=rows, level=level)
        self.Condition = make(
            "Condition", __config__=forbid, rows=rows, given=(given, of_some), level=level
        )
        self.Predictions = make("Predictions", rows=(list[dict[str, float]], ...))
        self.Refusal = make("Refusal", detail=(str, ...))
        self.Health = make(
            "Health",
            status=(str, ...),
            version=(str, ...),
            inputs=(list[str], ...),
            targets=(list[str], ...),
        )

    def table(self, rows: Sequence[Any]) -> Any:
        """Return the rows of a request as a `pyarrow.Table`.

        Raises:
            TableError: a column mixes texts and numbers.

        """
        arrow = require("pyarrow", "serving.create_app")
        return arrow.table(
            {
                name: _column(arrow, name, [getattr(row, f"column_{i}") for row in rows])
                for i, name in enumerate(self._columns)
            }
        )

    def measured(self, request: Any) -> dict[str, np.ndarray]:
        """Return target → values (rows,) of a request to condition, NaN where not measured.

        Raises:
            TableError: no target is given, or all of them, or there is not one value for each row.

        """
        found = {}
        for i, name in enumerate(self._targets):
            value = getattr(request.given, f"target_{i}")
            if value is None:
                continue
            values = value if isinstance(value, list) else [value] * len(request.rows)
            if len(values) != len(request.rows):
                raise TableError(
                    f"given.{name}: {len(values)} values for {len(request.rows)} rows."
                )
            found[name] = np.array([np.nan if v is None else v for v in values], np.float64)
        if not found or len(found) == len(self._targets):
            raise TableError(
                f"given: name at least one of {self._targets}, and leave at least one to predict."
            )
        return found


def _cell(field: Any, encoder: Encoder) -> tuple[Any, Any]:
    """Return type and field of a column: numbers near those in training, truths, anything else."""
    if isinstance(encoder, NumberEncoder):
        center, scale = encoder.units
        reach = FARTHEST * (scale or 1.0)
        return float | None, field(
            alias=encoder.column,
            strict=True,
            allow_inf_nan=False,
            ge=center - reach,
            le=center + reach,
        )
    if isinstance(encoder, BooleanEncoder):
        return bool | None, field(alias=encoder.column, strict=True)
    number = Annotated[float, field(allow_inf_nan=False, strict=True)]
    return number | str | bool | None, field(alias=encoder.column)


def _column(arrow: Any, name: str, cells: list[Any]) -> Any:
    """Return cells as an Arrow column.

    Raises:
        TableError: texts and numbers are mixed.

    """
    kinds = {float if isinstance(c, int) and not isinstance(c, bool) else type(c)
             for c in cells if c is not None}  # fmt: skip
    if len(kinds) > 1:
        raise TableError(f"column {name!r} mixes {', '.join(sorted(k.__name__ for k in kinds))}.")
    kind = kinds.pop() if kinds else float
    if kind is float:
        numbers = [None if cell is None else float(cell) for cell in cells]
        return arrow.array(numbers, arrow.float64())
    return arrow.array(cells, arrow.bool_() if kind is bool else arrow.string())
