"""What predicts for tables: a fit directory, an estimator or a network, as bytes."""

from __future__ import annotations

import abc
import functools
import hashlib
import io
import pickle
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import keras
import numpy as np

from keras_mvn._core.types import Array
from keras_mvn._training.prediction import from_bytes, predict, to_bytes
from keras_mvn.distributions import Distribution
from keras_mvn.layers._find_heads import heads
from keras_mvn.serving._means import MEANS
from keras_mvn.serving.fitted_model import (
    CALIBRATION,
    DONORS,
    FIT,
    MEMBERS,
    MODEL,
    PREPROCESSING,
    FittedModel,
)

__all__ = ["Estimator", "FitDirectory", "Loaded", "Network", "Source", "source_of"]

NEEDED = (FIT, PREPROCESSING, CALIBRATION, DONORS, MODEL)
"""Files of a fit directory that predictions need."""

FOLDERS = (MEMBERS, MEANS)
"""Folders of it that they need."""


class Loaded(abc.ABC):
    """A model in memory."""

    @abc.abstractmethod
    def columns(self, table: Any) -> list[str]:
        """Return the names of the columns of a `pyarrow.Table` that are inputs.

        Raises:
            ValueError: the table lacks some.

        """

    @abc.abstractmethod
    def predict(self, table: Any) -> Distribution:
        """Predict for the rows, one or more, of a `pyarrow.Table` with these columns."""

    @abc.abstractmethod
    def none(self) -> Distribution:
        """Return the predictions for zero rows."""


@dataclass(frozen=True)
class Source(abc.ABC):
    """A model as bytes, which another process can load.

    Args:
        content: the bytes.

    """

    content: bytes

    @functools.cached_property
    def key(self) -> str:
        """A hash of the contents."""
        return f"{type(self).__name__} {hashlib.sha256(self.content).hexdigest()}"

    @abc.abstractmethod
    def load(self) -> Loaded:
        """Load the model, with the backend in use."""


def source_of(model: Any) -> Source:
    """Return the source of a fit directory, given by its path, an estimator or a Keras model.

    Raises:
        TypeError: it is something else.
        ValueError: the path is no fit directory, its model has lags, or a model has no head.

    """
    if isinstance(model, str | Path):
        return _packed(Path(model))
    if isinstance(model, keras.Model):
        if len(heads(model)) != 1:
            raise ValueError(
                f"The model has {len(heads(model))} MultivariateNormalHead layers; expected one, "
                "whose output is the model's."
            )
        return Network(to_bytes(model))
    if hasattr(model, "predict_distribution"):
        return Estimator(pickle.dumps(model))
    raise TypeError(
        "Expected the path of a fit directory, a MultivariateNormalRegressor or a Keras model with "
        f"a MultivariateNormalHead; received {type(model).__name__}."
    )


def _packed(folder: Path) -> FitDirectory:
    """Pack the files of a fit directory that predictions need."""
    if not (folder / FIT).is_file():
        raise ValueError(f"{folder} is not a directory made by `keras-mvn fit`: it has no {FIT}.")
    files = [folder / name for name in NEEDED if (folder / name).is_file()]
    for name in FOLDERS:
        files.extend(sorted((folder / name).glob("*")))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            name = str(file.relative_to(folder))  # without its time: equal files, equal bytes
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return FitDirectory(packed.getvalue())


@final
class FitDirectory(Source):
    """The files of a fit directory."""

    def load(self) -> Loaded:
        """Load the model."""
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
                archive.extractall(folder)
            model = FittedModel.load(Path(folder))
        model.require_no_lags()
        return _OfTable(model)


@final
class Estimator(Source):
    """A fitted `MultivariateNormalRegressor`, pickled."""

    def load(self) -> Loaded:
        """Load the estimator."""
        return _OfEstimator(pickle.loads(self.content))


@final
class Network(Source):
    """A Keras model whose output is that of its head, as the bytes of its `.keras` file."""

    def load(self) -> Loaded:
        """Load the network."""
        return _OfNetwork(from_bytes(self.content))


@final
class _OfTable(Loaded):
    def __init__(self, model: FittedModel) -> None:
        self._model = model

    def columns(self, table: Any) -> list[str]:
        return _present(table, self._model.preprocessing.columns)

    def predict(self, table: Any) -> Distribution:
        return self._model.predict_distribution(table)

    def none(self) -> Distribution:
        return self._model.no_rows()


@final
class _OfEstimator(Loaded):
    def __init__(self, model: Any) -> None:
        self._model = model

    def columns(self, table: Any) -> list[str]:
        names = getattr(self._model, "feature_names_in_", None)
        return _present(table, names) if names is not None else list(table.column_names)

    def predict(self, table: Any) -> Distribution:
        if hasattr(self._model, "feature_names_in_"):
            answer: Distribution = self._model.predict_distribution(table.to_pandas())
        else:
            answer = self._model.predict_distribution(_matrix(table))
        return answer

    def none(self) -> Distribution:
        zeros = np.zeros((1, self._model.n_features_in_))
        if hasattr(self._model, "feature_names_in_"):
            import pandas

            zeros = pandas.DataFrame(zeros, columns=self._model.feature_names_in_)
        answer: Distribution = self._model.predict_distribution(zeros)[:0]
        return answer


@final
class _OfNetwork(Loaded):
    def __init__(self, model: Any) -> None:
        self._model, (self._head,) = model, heads(model)

    def columns(self, table: Any) -> list[str]:
        width, found = self._model.input_shape[-1], list(table.column_names)
        if len(found) != width:
            raise ValueError(
                f"The network has {width} inputs, and the table {len(found)} columns. Select and "
                "order the columns before."
            )
        return found

    def predict(self, table: Any) -> Distribution:
        answer: Distribution = self._head.distribution(predict(self._model, _matrix(table)))
        return answer

    def none(self) -> Distribution:
        zeros = np.zeros((1, self._model.input_shape[-1]), np.float32)
        answer: Distribution = self._head.distribution(predict(self._model, zeros))[:0]
        return answer


def _present(table: Any, wanted: Sequence[str]) -> list[str]:
    absent = [name for name in wanted if name not in table.column_names]
    if absent:
        raise ValueError(
            f"The table lacks {', '.join(map(repr, absent))}; it has "
            f"{', '.join(map(repr, table.column_names))}."
        )
    return list(wanted)


def _matrix(table: Any) -> Array:
    """Return the columns as (n, columns), float64."""
    columns = [np.asarray(table.column(name).to_numpy(), np.float64) for name in table.column_names]
    return np.stack(columns, axis=1)
