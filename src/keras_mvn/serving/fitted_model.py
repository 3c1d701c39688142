"""A model that `keras-mvn fit` wrote, loaded for predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import keras
import numpy as np

from keras_mvn._core.files import read_json, write_json
from keras_mvn._training.absent_inputs import Donors, predict_beyond
from keras_mvn._training.member import Center, Member, members_of
from keras_mvn._training.prediction import load_to_predict
from keras_mvn.calibration import Recalibration
from keras_mvn.distributions import Distribution
from keras_mvn.serving._means import load_means
from keras_mvn.serving._tables import as_arrow
from keras_mvn.tables import Preprocessing

__all__ = [
    "CALIBRATION",
    "DONORS",
    "FIT",
    "MEMBERS",
    "MODEL",
    "PREPROCESSING",
    "FittedModel",
    "load_calibration",
    "recalibrated",
    "save_calibration",
]

FIT = "fit.json"
PREPROCESSING = "preprocessing.json"
CALIBRATION = "calibration.json"
DONORS = "donors.npy"
MODEL = "model.keras"
MEMBERS = "members"


@final
@dataclass(frozen=True)
class FittedModel:
    """A trained model with everything that predictions need; `FittedModel.load` reads one.

    Args:
        about: dict, the contents of `fit.json`.
        preprocessing: the conversion of table rows to inputs.
        members: the networks; several of them form an ensemble.
        calibration: the recalibration of their predictions, or None.
        donors: training rows whose inputs stand in for absent ones, or None.
        centers: what else predicts the targets, which network i corrects, at i modulo their number;
            None for nothing.

    """

    about: dict[str, Any]
    preprocessing: Preprocessing
    members: Sequence[Any]
    calibration: Recalibration | None
    donors: Donors | None = None
    centers: Sequence[Center | None] = ()

    @classmethod
    def load(cls, folder: str | Path) -> FittedModel:
        """Load the model from a fit directory.

        Raises:
            OSError: the folder is not a fit directory, or is incomplete.

        """
        folder = Path(folder)
        about: dict[str, Any] = read_json(folder / FIT)
        preprocessing = Preprocessing.load(folder / PREPROCESSING)
        calibration = load_calibration(folder)
        single = folder / MODEL
        files = [single] if single.is_file() else sorted((folder / MEMBERS).glob("*.keras"))
        if not files:
            raise FileNotFoundError(f"{folder} has neither {MODEL} nor networks in {MEMBERS}")
        members = [load_to_predict(file) for file in files]
        centers = load_means(folder)
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
        return members_of(self.members, self.centers, self.about.get("weights", ()))

    def uncalibrated(self, x: Any) -> Distribution:
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

    def absent(self, gaps: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return which inputs are absent that never were in training: (n, features).

        Args:
            gaps: column → mask of its missing cells, from `Preprocessing.inputs_and_gaps`.

        """
        masks = [
            np.repeat(
                (gaps[encoder.column] & (encoder.column in self.preprocessing.complete))[:, None],
                len(encoder.names),
                axis=1,
            )
            for encoder in self.preprocessing.encoders
        ]
        return np.concatenate(masks, axis=1)

    def predict_distribution(self, table: Any) -> Distribution:
        """Predict for the rows of a table with the columns of training, with recalibration.

        Args:
            table: a pandas DataFrame, an Arrow or Polars table, or a dict of arrays.

        Raises:
            TableError: cells are of a different kind than in training.
            KeyError: a column is missing.
            ValueError: the model was fitted with lags.

        """
        self.require_no_lags()
        given = as_arrow(table)
        if not given.num_rows:
            return self.no_rows()
        inputs, gaps = self.preprocessing.inputs_and_gaps(given)
        return self.predict(inputs, self.absent(gaps))

    def require_no_lags(self) -> None:
        """Check that rows can be predicted without those before them.

        Raises:
            ValueError: the model was fitted with lags.

        """
        if self.about.get("options", {}).get("lags"):
            raise ValueError(
                "The model was fitted with --lags, which need the rows before each row; some rows "
                "alone do not have them. Use `keras-mvn predict` on a table in the order of time."
            )

    def no_rows(self) -> Distribution:
        """Return the predictions for zero rows."""
        return self.predict(np.zeros((1, len(self.preprocessing.names)), np.float32))[:0]


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
