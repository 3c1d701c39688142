"""Files of distributions: `.npz`, and Parquet for tables and other languages.

Both contain float64 arrays and a header as JSON. Those of elliptical distributions are the contents
of y_pred (mean, scale and shape parameters), the structure's configuration and the target names:
nothing is lost, and nothing of size d × d is written for a low-rank structure.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, final

import keras
import numpy as np

from keras_mvn._core.files import replacing
from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions._gaussian import Gaussian

__all__ = ["State", "load", "save"]

VERSION = 1

Names = tuple[str, ...] | None


@final
@dataclass(frozen=True)
class State:
    """What a file holds of a batch of distributions."""

    header: dict[str, Any]
    arrays: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of_gaussian(cls, kind: str, normal: Gaussian, names: Names, **more: Array) -> Self:
        """The state of an elliptical distribution, with further arrays (...)."""
        header = {
            "format": kind,
            "version": VERSION,
            "covariance": keras.saving.serialize_keras_object(normal.structure),
            "target_names": names,
            "event_size": normal.event_size,
        }
        arrays = {"mean": normal.mean, "scale": normal.scale, "shape_params": normal.shape_params}
        return cls(header, {**arrays, **more})

    def gaussian(self) -> Gaussian:
        """The location and scale matrix of an elliptical distribution."""
        structure = keras.saving.deserialize_keras_object(self.header["covariance"])
        return Gaussian(structure, *(self.arrays[k] for k in ("mean", "scale", "shape_params")))

    @property
    def names(self) -> Names:
        """The target names."""
        names = self.header["target_names"]
        return None if names is None else tuple(names)

    def member(self, number: int) -> State:
        """The state of one of several distributions that the file holds."""
        start = f"{number}."
        arrays = {k[len(start) :]: v for k, v in self.arrays.items() if k.startswith(start)}
        return State(self.header["members"][number], arrays)


def save(state: State, path: Any) -> None:
    """Write a file; if that fails, an existing file is left as it was."""
    target = Path(path)
    writer = _of_suffix(target)[0]
    with replacing(target) as fresh:
        writer(state, json.dumps(state.header), fresh)


def load(path: Any, formats: Mapping[str, str], who: str) -> State:
    """Read what `save` wrote.

    Args:
        path: path of the file.
        formats: names of the known formats, and of the classes that read them.
        who: name of the class that reads, for error messages.

    """
    source = Path(path)
    foreign = ValueError(f"{source} was not written by {who}.save, or is damaged.")
    header, arrays = _of_suffix(source)[1](source, foreign)
    known = json.loads(header) if header else {}
    if known.get("format") not in formats:
        raise foreign
    if known["version"] > VERSION:
        raise ValueError(
            f"{source} was written by a newer keras-mvn (format version {known['version']}; this "
            f"version reads up to {VERSION}). Upgrade keras-mvn."
        )
    state = State(known, arrays)
    return state if arrays else _from_table(state, source)


def _write_npz(state: State, header: str, path: Path) -> None:
    arrays: dict[str, Any] = state.arrays
    np.savez_compressed(path, header=np.array(header), **arrays)


def _read_npz(path: Path, foreign: ValueError) -> tuple[str | None, dict[str, Array]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (EOFError, ValueError, zipfile.BadZipFile, zlib.error):  # not an archive, or damaged
        raise foreign from None
    header = arrays.pop("header", None)
    return None if header is None else str(header), arrays


def _write_parquet(state: State, header: str, path: Path) -> None:
    """Write columns `<target>_mean` and `<target>_scale`, and shape parameters as lists in one."""
    arrow, parquet = require("pyarrow", "save"), require("pyarrow.parquet", "save")
    if "members" in state.header:
        raise ValueError(
            "A Parquet file has one distribution per row, and here every row has several "
            "components. Use .npz."
        )
    arrays = dict(state.arrays)
    mean, scale, shape_params = (arrays.pop(k) for k in ("mean", "scale", "shape_params"))
    if mean.ndim != 2:
        raise ValueError(
            "A Parquet file has one row per distribution, so there must be one batch axis; the "
            f"batch shape is {mean.shape[:-1]}. Use .npz."
        )
    columns = {
        f"{name}_{kind}": array[:, j]
        for kind, array in (("mean", mean), ("scale", scale))
        for j, name in enumerate(target_names_of(state.names, mean.shape[-1]))
    }
    columns |= arrays
    shape_params = np.ascontiguousarray(shape_params)
    if shape_params.shape[-1]:
        columns["shape_params"] = arrow.FixedSizeListArray.from_arrays(
            arrow.array(shape_params.reshape(-1)), shape_params.shape[-1]
        )
    table = arrow.table(columns).replace_schema_metadata({"keras_mvn": header})
    parquet.write_table(table, path)


def _read_parquet(path: Path, foreign: ValueError) -> tuple[str | None, dict[str, Array]]:
    metadata = require("pyarrow.parquet", "load").read_schema(path).metadata or {}
    header = metadata.get(b"keras_mvn")
    return None if header is None else header.decode(), {}


def _from_table(state: State, path: Path) -> State:
    """Read the arrays of a Parquet file."""
    table = require("pyarrow.parquet", "load").read_table(path)
    d, n = state.header["event_size"], table.num_rows
    numbers = np.stack([table.column(j).to_numpy() for j in range(2 * d)], axis=-1)
    arrays = {"mean": numbers[:, :d], "scale": numbers[:, d:], "shape_params": np.zeros((n, 0))}
    for name in table.column_names[2 * d :]:
        if name == "shape_params":
            flat = table.column(name).combine_chunks().flatten().to_numpy()
            arrays[name] = flat.reshape(n, flat.size // max(n, 1))
        else:
            arrays[name] = table.column(name).to_numpy()
    return State(state.header, arrays)


_SUFFIXES: dict[str, tuple[Callable[..., None], Callable[..., tuple[Any, ...]]]] = {
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
}


def _of_suffix(path: Path) -> tuple[Callable[..., None], Callable[..., tuple[Any, ...]]]:
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} has suffix {path.suffix!r}; expected one of {list(_SUFFIXES)}.")
    return _SUFFIXES[path.suffix]
