"""Predictions for batches of a table, for engines that call a function in many processes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, final

import keras
import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.version import __version__
from keras_mvn.distributions import Distribution
from keras_mvn.serving._sources import Loaded, source_of
from keras_mvn.serving._tables import as_arrow, returned_like

__all__ = ["BatchPredictor"]

OUTPUTS = ("mean", "stddev", "interval", "correlation")

_LOADED: dict[str, Loaded] = {}
"""Models that this process has loaded."""

_LOCK = threading.Lock()


@final
class BatchPredictor:
    """A function from batches of a table to predictions, which can be sent to other processes.

    It carries its model along, a few megabytes, so that workers need no shared files; each process
    loads the model once. Batches may be of any size, also empty, and come back in their own form.

    For Ray Data, `dataset.map_batches(predictor, batch_format="pandas")`; for Dask,
    `frame.map_partitions(predictor, meta=predictor.meta)`; for Spark,
    `frame.mapInPandas(predictor.iterate, schema)`, with the schema from `predictor.schema`.

    Args:
        model: path of a fit directory that `keras-mvn fit` wrote; a fitted
            `MultivariateNormalRegressor`; or a Keras model whose output is that of a
            `MultivariateNormalHead`. An estimator fitted to arrays, and a Keras model, take all
            columns, in their order.
        outputs: which columns to return for each target: "mean", "stddev", "interval" (the central
            one), all in the target's units, and "correlation" with every later target.
        level: float in (0, 1), probability of the intervals.
        keep: columns of the batches to copy to the front, such as an identifier: names, or a
            mapping from names to Arrow types (such as "int64"), which `schema` and `meta` need.

    Raises:
        ValueError: the model cannot predict for batches, or an output is unknown.
        TypeError: `model` is something else.

    >>> import keras, numpy as np
    >>> from keras_mvn.layers import MultivariateNormalHead
    >>> head = MultivariateNormalHead(2, target_names=["a", "b"])
    >>> network = keras.Sequential([keras.Input((3,)), head])
    >>> predictor = BatchPredictor(network, outputs=["mean"])
    >>> found = predictor({"u": np.zeros(4), "v": np.ones(4), "w": np.ones(4)})
    >>> {name: column.shape for name, column in found.items()}
    {'a_mean': (4,), 'b_mean': (4,)}

    """

    def __init__(
        self,
        model: Any,
        outputs: Sequence[str] = ("mean", "stddev", "interval"),
        level: float = 0.9,
        keep: Sequence[str] | Mapping[str, str] = (),
    ) -> None:
        unknown = [name for name in outputs if name not in OUTPUTS]
        if unknown or isinstance(outputs, str):
            raise ValueError(
                f"outputs={outputs!r}: expected a list of {', '.join(map(repr, OUTPUTS))}."
            )
        if not 0.0 < level < 1.0:
            raise ValueError(f"level={level!r}: expected a probability between 0 and 1.")
        self.outputs, self.level = tuple(outputs), float(level)
        self.keep = dict(keep) if isinstance(keep, Mapping) else dict.fromkeys(keep)
        self._source = source_of(model)
        self._made_by = {"keras-mvn": __version__, "backend": keras.backend.backend()}
        self._loaded()

    def __call__(self, table: Any) -> Any:
        """Return the predictions for a batch of rows.

        Args:
            table: pandas DataFrame, Arrow or Polars table, or dict of arrays, with the columns that
                the model was fitted to; others are ignored.

        Returns:
            A table in the form of the batch, a row per row: pandas with the same index, a dict of
            arrays, or an Arrow table.

        Raises:
            ValueError: columns are missing, or cells are of a different kind than in training.

        """
        given, model = as_arrow(table), self._loaded()
        absent = [name for name in self.keep if name not in given.column_names]
        if absent:
            raise ValueError(f"keep: the table lacks {', '.join(map(repr, absent))}.")
        inputs = given.select(model.columns(given))
        answer = model.predict(inputs) if given.num_rows else model.none()
        found = self._columns(answer)
        twice = [name for name in self.keep if name in found]
        if twice:
            raise ValueError(
                f"keep: the predictions have a column {twice[0]!r}, too; rename that of the table."
            )
        kept = {name: given.column(name) for name in self.keep}
        return returned_like(table, {**kept, **found})

    def iterate(self, tables: Iterable[Any]) -> Iterator[Any]:
        """Yield the predictions for each of several batches, as Spark's `mapInPandas` asks for."""
        for table in tables:
            yield self(table)

    @property
    def schema(self) -> Any:
        """The `pyarrow.Schema` of what is returned.

        Raises:
            ValueError: the types of the columns to keep are unknown; `keep` takes a mapping.

        """
        arrow = require("pyarrow", "BatchPredictor.schema")
        untyped = [name for name, kind in self.keep.items() if kind is None]
        if untyped:
            raise ValueError(
                f"keep: the types of {', '.join(map(repr, untyped))} are unknown; pass a mapping, "
                f"such as keep={{{untyped[0]!r}: 'int64'}}."
            )
        fields = [(name, arrow.type_for_alias(kind)) for name, kind in self.keep.items()]
        names = self._columns(self._loaded().none())
        return arrow.schema([*fields, *((name, arrow.float64()) for name in names)])

    @property
    def meta(self) -> Any:
        """An empty pandas DataFrame with the columns and types of what is returned, for Dask."""
        return self.schema.empty_table().to_pandas()

    def _columns(self, answer: Distribution) -> dict[str, np.ndarray]:
        """Return the requested columns, as `to_frame` names them."""
        targets = target_names_of(answer.target_names, answer.event_size)
        level = self.level if "interval" in self.outputs else None
        frame = answer.to_frame(level=level, correlations="correlation" in self.outputs)
        kinds = {"mean": ("mean",), "stddev": ("stddev",), "interval": ("lower", "upper")}
        parts = [part for kind in self.outputs for part in kinds.get(kind, ())]
        names = [f"{target}_{part}" for target in targets for part in parts]
        if "correlation" in self.outputs:
            names += [
                f"{a}_{b}_correlation" for i, a in enumerate(targets) for b in targets[i + 1 :]
            ]
        return {name: frame[name].to_numpy() for name in names}

    def _loaded(self) -> Loaded:
        """Return the model, which this process loads when it is first asked."""
        key = self._source.key
        with _LOCK:
            if key not in _LOADED:
                self._check_process()
                _LOADED[key] = self._source.load()
            return _LOADED[key]

    def _check_process(self) -> None:
        """Check that this process can load what another one made.

        Raises:
            RuntimeError: it has another version of keras-mvn.

        Warns:
            RuntimeWarning: it has another backend, with which numbers differ in the last digits.

        """
        if self._made_by["keras-mvn"] != __version__:
            raise RuntimeError(
                f"This BatchPredictor was made by keras-mvn {self._made_by['keras-mvn']}, and this "
                f"process has {__version__}. Install the same version for all workers."
            )
        backend = keras.backend.backend()
        if self._made_by["backend"] != backend:
            warnings.warn(
                f"This BatchPredictor was made with the backend {self._made_by['backend']}, and "
                f"this process has {backend}: predictions may differ in the last digits. Set "
                f"KERAS_BACKEND={self._made_by['backend']} for all workers.",
                RuntimeWarning,
                stacklevel=4,
            )
