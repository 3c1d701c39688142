"""A trained model loaded from its fit directory, and its predictions for a table in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import keras
import numpy as np

from keras_mvn._core.files import read_json, write_json
from keras_mvn._training.absent_inputs import Donors, predict_beyond
from keras_mvn._training.member import Center, Member, members_of
from keras_mvn._training.prediction import load_to_predict
from keras_mvn.calibration import Recalibration
from keras_mvn.distributions import Distribution
from keras_mvn.distributions._predicted import Predicted
from keras_mvn.tables import Preprocessing, Table, open_table
from keras_mvn_cli._console import Output, RefusalError
from keras_mvn_cli._findings import MOST, Findings
from keras_mvn_cli._fit_directory import fitted, is_same
from keras_mvn_cli._lags import with_lags
from keras_mvn_cli._means import load_means
from keras_mvn_cli._outside import Outside
from keras_mvn_cli._table_options import TableOptions

__all__ = [
    "CALIBRATION",
    "DONORS",
    "MEMBERS",
    "MODEL",
    "PREPROCESSING",
    "FittedModel",
    "Rows",
    "load_calibration",
    "recalibrated",
    "save_calibration",
    "table_and_model",
]

PREPROCESSING = "preprocessing.json"
CALIBRATION = "calibration.json"
DONORS = "donors.npy"
MODEL = "model.keras"
MEMBERS = "members"


class Rows(NamedTuple):
    """Some rows of a table, and the predictions for them."""

    batch: Any
    """`pyarrow.RecordBatch`."""
    normal: Distribution


@final
@dataclass(frozen=True)
class FittedModel:
    """A trained model with everything that predictions need.

    Args:
        about: dict, the contents of `fit.json`.
        preprocessing: the conversion of table rows to inputs.
        members: the networks; several of them form an ensemble.
        calibration: the recalibration of their predictions, or None.
        donors: training rows whose inputs stand in for absent ones, or None.
        centers: what else predicts the targets, which network i corrects at i modulo their number.

    """

    about: dict[str, Any]
    preprocessing: Preprocessing
    members: Sequence[Any]
    calibration: Recalibration | None
    donors: Donors | None = None
    centers: Sequence[Center] = ()

    @classmethod
    def load(cls, folder: Path) -> FittedModel:
        """Load the model from a fit directory.

        Raises:
            RefusalError: the folder is not a fit directory, or is incomplete.

        """
        about = fitted(folder)
        try:
            preprocessing = Preprocessing.load(folder / PREPROCESSING)
            calibration = load_calibration(folder)
            single = folder / MODEL
            files = [single] if single.is_file() else sorted((folder / MEMBERS).glob("*.keras"))
            members = [load_to_predict(file) for file in files]
            centers = load_means(folder)
        except OSError as error:
            raise RefusalError(f"{folder} is incomplete: {error}") from error
        donors = folder / DONORS  # fit directories of 0.1.0 have none
        rows = Donors(np.load(donors)) if donors.is_file() else None
        return cls(about, preprocessing, members, calibration, rows, centers)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self.preprocessing.targets

    @property
    def predicting(self) -> list[Member]:
        """What predicts: the networks, over other regressors if there are any."""
        return members_of(self.members, self.centers)

    def uncalibrated(self, x: Any) -> Predicted:
        """Predict from inputs (n, features), without recalibration."""
        return predict_beyond(self.predicting, x, self.donors)

    def predict(self, x: Any, absent: np.ndarray | None = None) -> Distribution:
        """Predict from inputs (n, features), with recalibration.

        Args:
            x: inputs; absent ones are imputed.
            absent: (n, features), whether an input is absent that never was in training; these
                predictions are as wide as the inputs' values in similar training rows make them.

        """
        if self.donors is None or absent is None:
            return recalibrated(self.calibration, self.uncalibrated(x))
        answer = self.donors.predict(self.uncalibrated, x, absent)
        return recalibrated(self.calibration, answer)

    def _absent(self, gaps: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return which inputs are absent that never were in training: (n, features)."""
        masks = [
            np.repeat(
                (gaps[encoder.column] & (encoder.column in self.preprocessing.complete))[:, None],
                len(encoder.names),
                axis=1,
            )
            for encoder in self.preprocessing.encoders
        ]
        return np.concatenate(masks, axis=1)

    def stream(
        self,
        table: Table,
        findings: Findings,
        columns: Sequence[str] = (),
        targets: bool = False,
        what: str = "predictions",
    ) -> Iterator[Rows]:
        """Yield predictions for all rows of a table, one batch at a time.

        Args:
            table: the table to predict for.
            findings: receives what is unusual in the rows, and is told at their end.
            columns: names of columns to read besides the inputs.
            targets: bool, whether the targets must be in the table as well.
            what: str, what is too optimistic for rows that were trained on, for the warning.

        Raises:
            TableError: the table does not fit the model.

        """
        self.preprocessing.check(table, targets)
        extra = [*columns, *(self.targets if targets else ())]
        wanted = list(dict.fromkeys([*self.preprocessing.columns, *extra]))
        rows = 0
        limits = self.predicting[0].limits
        outside = None if limits is None else Outside(limits, self.about["rows"]["train"])
        for batch in table.batches(wanted):
            if not batch.num_rows:
                continue
            if not rows:
                self._warn_of_training_rows(table, findings.output, what)
            with table.located(rows):
                inputs, gaps = self.preprocessing.inputs_and_gaps(batch)
                findings.add_unknown(self.preprocessing.unknown_categories(batch))
                findings.add_gaps(gaps, self.preprocessing.complete, self.donors is not None)
                if outside is not None:
                    self._find_far(limits, inputs, table, rows, findings)
                    outside.add(inputs)
            yield Rows(batch, self.predict(inputs, self._absent(gaps)))
            rows += batch.num_rows
        if outside is not None:
            told = outside.told(self.preprocessing.names, self.preprocessing.in_units)
            findings.add_outside(told)
        findings.tell(rows)
        if not rows:
            yield self._no_rows(table, wanted)

    def _find_far(
        self, limits: Any, inputs: np.ndarray, table: Table, first: int, findings: Findings
    ) -> None:
        """Report numbers further beyond the range of the training rows than that range is wide."""
        far = limits.outside(inputs) > 1.0
        ends = self.preprocessing.in_units(np.stack([limits.lower, limits.upper]))
        for column in np.flatnonzero(far.any(axis=0)):
            rows, (low, high) = np.flatnonzero(far[:, column]), ends[:, column]
            texts = []
            for row in rows[:MOST]:  # all of them, where the unit of a column has changed
                value = self.preprocessing.in_units(inputs[row : row + 1])[0, column]
                side = f"reach {high:.6g}" if value > high else f"begin at {low:.6g}"
                texts.append(
                    f"{value:.6g} in {table.place(first + int(row))}, training rows {side}"
                )
            findings.add_far(self.preprocessing.names[column], texts, len(rows), int(rows[0]))

    def _warn_of_training_rows(self, table: Table, output: Output, what: str) -> None:
        if is_same(table.path, self.about.get("file")):
            rows = self.about["rows"]
            output.warn(
                f"the model was fitted to {table.path.name}: {rows['train']} of its "
                f"{self.about['rows_in_file']} rows were trained on, so {what} for them are "
                "better than for new rows; metrics.json has the scores of the test rows alone."
            )

    def _no_rows(self, table: Table, columns: Sequence[str]) -> Rows:
        """Return zero rows with the usual columns, for a table without rows."""
        any_row = np.zeros((1, len(self.preprocessing.names)), np.float32)
        return Rows(table.no_rows(columns), self.predict(any_row)[:0])


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
    model = FittedModel.load(model_dir)
    cells = given.cells(model.preprocessing.cells)
    table = with_lags(table, about.get("options", {}), cells)
    return table, replace(model, preprocessing=replace(model.preprocessing, cells=cells))


def recalibrated(calibration: Recalibration | None, normal: Distribution) -> Distribution:
    """Return the recalibrated distributions, or the same ones if there is no calibration."""
    return normal if calibration is None else calibration.apply(normal)


def save_calibration(calibration: Recalibration | None, method: str, folder: Path) -> None:
    """Write `calibration.json`."""
    serialized = None
    if calibration is not None:
        serialized = keras.saving.serialize_keras_object(calibration)
    write_json(folder / CALIBRATION, {"method": method, "calibration": serialized})


def load_calibration(folder: Path) -> Recalibration | None:
    """Load what `save_calibration` wrote: the recalibration, or None."""
    serialized = read_json(folder / CALIBRATION)["calibration"]
    if serialized is None:
        return None
    calibration: Recalibration = keras.saving.deserialize_keras_object(serialized)
    return calibration
