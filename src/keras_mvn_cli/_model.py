"""A trained model from its fit directory, and its predictions for a table, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import keras
import numpy as np

from keras_mvn._core.files import read_json, write_json
from keras_mvn._training.prediction import predict_normal
from keras_mvn.calibration import Recalibration
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.tables import Preprocessing, Table
from keras_mvn_cli._console import Output, RefusalError
from keras_mvn_cli._folder import fitted, is_same

__all__ = [
    "CALIBRATION",
    "MEMBERS",
    "MODEL",
    "PREPROCESSING",
    "FittedModel",
    "Rows",
    "load_calibration",
    "recalibrated",
    "save_calibration",
]

PREPROCESSING = "preprocessing.json"
CALIBRATION = "calibration.json"
MODEL = "model.keras"
MEMBERS = "members"


class Rows(NamedTuple):
    """Some rows of a table, and what is predicted for them."""

    batch: Any
    """`pyarrow.RecordBatch`."""
    normal: MultivariateNormal


@final
@dataclass(frozen=True)
class FittedModel:
    """What `fit` left: everything for a prediction.

    Args:
        about: `fit.json`.
        preprocessing: from a table to inputs.
        members: networks; several are an ensemble.
        calibration: of their predictions, or None.

    """

    about: dict[str, Any]
    preprocessing: Preprocessing
    members: Sequence[Any]
    calibration: Recalibration | None

    @classmethod
    def load(cls, folder: Path) -> FittedModel:
        """From a fit directory.

        Raises:
            RefusalError: it is none.

        """
        about = fitted(folder)
        try:
            preprocessing = Preprocessing.load(folder / PREPROCESSING)
            calibration = load_calibration(folder)
            single = folder / MODEL
            files = [single] if single.is_file() else sorted((folder / MEMBERS).glob("*.keras"))
            members = [keras.models.load_model(file) for file in files]
        except OSError as error:
            raise RefusalError(f"{folder} is incomplete: {error}") from error
        return cls(about, preprocessing, members, calibration)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self.preprocessing.targets

    def uncalibrated(self, x: Any) -> MultivariateNormal:
        """Of inputs (n, features), as the networks say."""
        return predict_normal(self.members, x)

    def predict(self, x: Any) -> MultivariateNormal:
        """Of inputs (n, features), recalibrated."""
        return recalibrated(self.calibration, self.uncalibrated(x))

    def stream(
        self,
        table: Table,
        output: Output,
        columns: Sequence[str] = (),
        targets: bool = False,
        what: str = "predictions",
    ) -> Iterator[Rows]:
        """Predictions for all rows of a table, as many at a time as one batch has.

        Args:
            table: to predict for.
            output: hears of categories that training did not have.
            columns: others than the inputs to read.
            targets: whether the targets must be there as well.
            what: is optimistic on rows that were trained on.

        Raises:
            TableError: the table does not fit.

        """
        self.preprocessing.check(table, targets)
        extra = [*columns, *(self.targets if targets else ())]
        wanted = list(dict.fromkeys([*self.preprocessing.columns, *extra]))
        told: set[str] = set()
        empty = True
        for batch in table.batches(wanted):
            if not batch.num_rows:
                continue
            if empty:
                self._warn_of_training_rows(table, output, what)
            for column, texts in self.preprocessing.unknown_categories(batch).items():
                if column not in told:
                    told.add(column)
                    output.say(
                        f"{column}: {texts[0]!r} and such were not seen, or too rare, in training"
                    )
            yield Rows(batch, self.predict(self.preprocessing.inputs(batch)))
            empty = False
        if empty:
            yield self._no_rows(table, wanted)

    def _warn_of_training_rows(self, table: Table, output: Output, what: str) -> None:
        if is_same(table.path, self.about.get("file")):
            rows = self.about["rows"]
            output.warn(
                f"the model was fitted to {table.path.name}: {rows['train']} of its "
                f"{self.about['rows_in_file']} rows were trained on, so {what} for them are "
                "better than for others; metrics.json has the scores of the test rows alone."
            )

    def _no_rows(self, table: Table, columns: Sequence[str]) -> Rows:
        """Of a table without any: what is written has its columns all the same."""
        any_row = np.zeros((1, len(self.preprocessing.names)), np.float32)
        return Rows(table.no_rows(columns), self.predict(any_row)[:0])


def recalibrated(
    calibration: Recalibration | None, normal: MultivariateNormal
) -> MultivariateNormal:
    """As the calibration has it, if there is one."""
    return normal if calibration is None else calibration.apply(normal)


def save_calibration(calibration: Recalibration | None, method: str, folder: Path) -> None:
    """Write `calibration.json`."""
    serialized = None
    if calibration is not None:
        serialized = keras.saving.serialize_keras_object(calibration)
    write_json(folder / CALIBRATION, {"method": method, "calibration": serialized})


def load_calibration(folder: Path) -> Recalibration | None:
    """What `save_calibration` wrote."""
    serialized = read_json(folder / CALIBRATION)["calibration"]
    if serialized is None:
        return None
    calibration: Recalibration = keras.saving.deserialize_keras_object(serialized)
    return calibration
