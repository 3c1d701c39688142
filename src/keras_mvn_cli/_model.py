"""Predictions of a fitted model for a table, in batches, with what is unusual about its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from keras_mvn.distributions import Distribution
from keras_mvn.serving.fitted_model import FittedModel
from keras_mvn.tables import Table, open_table
from keras_mvn_cli._console import Output, RefusalError
from keras_mvn_cli._findings import MOST, Findings
from keras_mvn_cli._fit_directory import fitted, is_same
from keras_mvn_cli._lags import with_lags
from keras_mvn_cli._outside import Outside
from keras_mvn_cli._table_options import TableOptions

__all__ = ["Rows", "load_model", "stream", "table_and_model"]


@final
class Rows(NamedTuple):
    """Some rows of a table, and the predictions for them."""

    batch: Any
    """`pyarrow.RecordBatch`."""
    normal: Distribution


def load_model(folder: Path) -> FittedModel:
    """Load the model from a fit directory.

    Raises:
        RefusalError: the folder is not a fit directory, or is incomplete.

    """
    fitted(folder)
    try:
        return FittedModel.load(folder)
    except OSError as error:
        raise RefusalError(f"{folder} is incomplete: {error}") from error


def stream(
    model: FittedModel,
    table: Table,
    findings: Findings,
    columns: Sequence[str] = (),
    targets: bool = False,
    what: str = "predictions",
) -> Iterator[Rows]:
    """Yield predictions for all rows of a table, one batch at a time.

    Args:
        model: the model.
        table: the table to predict for.
        findings: receives what is unusual in the rows, and is told at their end.
        columns: names of columns to read besides the inputs.
        targets: bool, whether the targets must be in the table as well.
        what: str, what is too optimistic for rows that were trained on, for the warning.

    Raises:
        TableError: the table does not fit the model.

    """
    model.preprocessing.check(table, targets)
    extra = [*columns, *(model.targets if targets else ())]
    wanted = list(dict.fromkeys([*model.preprocessing.columns, *extra]))
    rows = 0
    limits = model.predicting[0].limits
    outside = None if limits is None else Outside(limits, model.about["rows"]["train"])
    for batch in table.batches(wanted):
        if not batch.num_rows:
            continue
        if not rows:
            _warn_of_training_rows(model, table, findings.output, what)
        with table.located(rows):
            inputs, gaps = model.preprocessing.inputs_and_gaps(batch)
            findings.add_unknown(model.preprocessing.unknown_categories(batch))
            findings.add_gaps(gaps, model.preprocessing.complete, model.donors is not None)
            if outside is not None:
                _find_far(model, limits, inputs, table, rows, findings)
                outside.add(inputs)
        yield Rows(batch, model.predict(inputs, model.absent(gaps)))
        rows += batch.num_rows
    if outside is not None:
        told = outside.told(model.preprocessing.names, model.preprocessing.in_units)
        findings.add_outside(told)
    findings.tell(rows)
    if not rows:
        yield Rows(table.no_rows(wanted), model.no_rows())


def _find_far(
    model: FittedModel,
    limits: Any,
    inputs: np.ndarray,
    table: Table,
    first: int,
    findings: Findings,
) -> None:
    """Report numbers further beyond the range of the training rows than that range is wide."""
    far = limits.outside(inputs) > 1.0
    ends = model.preprocessing.in_units(np.stack([limits.lower, limits.upper]))
    for column in np.flatnonzero(far.any(axis=0)):
        rows, (low, high) = np.flatnonzero(far[:, column]), ends[:, column]
        texts = []
        for row in rows[:MOST]:  # all of them, where the unit of a column has changed
            value = model.preprocessing.in_units(inputs[row : row + 1])[0, column]
            side = f"reach {high:.6g}" if value > high else f"begin at {low:.6g}"
            texts.append(f"{value:.6g} in {table.place(first + int(row))}, training rows {side}")
        findings.add_far(model.preprocessing.names[column], texts, len(rows), int(rows[0]))


def _warn_of_training_rows(model: FittedModel, table: Table, output: Output, what: str) -> None:
    if is_same(table.path, model.about.get("file")):
        rows = model.about["rows"]
        output.warn(
            f"the model was fitted to {table.path.name}: {rows['train']} of its "
            f"{model.about['rows_in_file']} rows were trained on, so {what} for them are "
            "better than for new rows; metrics.json has the scores of the test rows alone."
        )


def table_and_model(
    data: Path, model_dir: Path, given: TableOptions, findings: Findings
) -> tuple[Table, FittedModel]:
    """Open a table and load the model for it; the options given go before those of the fit.

    Raises:
        RefusalError: the folder is not a fit directory, or is incomplete.
        TableError: the table cannot be opened.

    """
    about = fitted(model_dir)
    options = given.over(TableOptions.kept(about))
    table = open_table(data, options.reading())
    left_out = options.left_out(given)
    if left_out and table.is_text:
        findings.remember(f"lines of {data.name} are left out as in the fit: {left_out}")
    model = load_model(model_dir)
    cells = given.cells(model.preprocessing.cells)
    table = with_lags(table, about.get("options", {}), cells)
    if table.history:
        findings.remember(
            f"the first {table.history} rows of {data.name} lack earlier ones for --lags, and are "
            "predicted without"
        )
    return table, replace(model, preprocessing=replace(model.preprocessing, cells=cells))
