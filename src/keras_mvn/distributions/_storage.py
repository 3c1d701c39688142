"""Files of distributions: `.npz`, and Parquet for tables and other languages.

Both contain the contents of y_pred (mean, scale and shape parameters) in float64, with the
structure's configuration and the target names as JSON. Nothing is lost, and nothing of size d × d
is written for a low-rank structure.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mvn._core.files import replacing
from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn.distributions._gaussian import Gaussian

__all__ = ["load", "save"]

FORMAT = "keras_mvn.MultivariateNormal"
VERSION = 1

_ARRAYS = ("mean", "scale", "shape_params")

Names = tuple[str, ...] | None


def save(normal: Gaussian, target_names: Names, path: Any) -> None:
    """Write a file; if that fails, an existing file is left as it was."""
    target = Path(path)
    writer = _of_suffix(target)[0]
    header = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "covariance": keras.saving.serialize_keras_object(normal.structure),
            "target_names": target_names,
            "event_size": normal.event_size,
        }
    )
    with replacing(target) as fresh:
        writer(normal, target_names, header, fresh)


def load(path: Any) -> tuple[Gaussian, Names]:
    """Read the distributions and target names from a file written by `save`."""
    source = Path(path)
    reader = _of_suffix(source)[1]
    header, mean, scale, shape_params = reader(source)
    structure = keras.saving.deserialize_keras_object(header["covariance"])
    names = header["target_names"]
    return Gaussian(structure, mean, scale, shape_params), None if names is None else tuple(names)


def _header(text: str | None, source: Path) -> dict[str, Any]:
    header = json.loads(text) if text else {}
    if header.get("format") != FORMAT:
        raise _foreign(source)
    if header["version"] > VERSION:
        raise ValueError(
            f"{source} was written by a newer keras-mvn (format version {header['version']}; this "
            f"version reads up to {VERSION}). Upgrade keras-mvn."
        )
    return header


def _foreign(source: Path) -> ValueError:
    return ValueError(f"{source} was not written by MultivariateNormal.save, or is damaged.")


def _write_npz(normal: Gaussian, names: Names, header: str, path: Path) -> None:
    np.savez_compressed(
        path,
        header=np.array(header),
        mean=normal.mean,
        scale=normal.scale,
        shape_params=normal.shape_params,
    )


def _read_npz(path: Path) -> tuple[Any, ...]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            header = str(file["header"]) if "header" in file else None
            arrays = [file.get(name) for name in _ARRAYS]
    except (EOFError, ValueError, zipfile.BadZipFile, zlib.error):  # not an archive, or damaged
        raise _foreign(path) from None
    return _header(header, path), *arrays


def _write_parquet(normal: Gaussian, names: Names, header: str, path: Path) -> None:
    """Write columns `<target>_mean` and `<target>_scale`, and shape parameters as lists in one."""
    arrow, parquet = require("pyarrow", "save"), require("pyarrow.parquet", "save")
    if len(normal.batch_shape) != 1:
        raise ValueError(
            "A Parquet file has one row per distribution, so there must be one batch axis; the "
            f"batch shape is {normal.batch_shape}. Use .npz."
        )
    columns = {
        f"{name}_{kind}": array[:, j]
        for kind, array in (("mean", normal.mean), ("scale", normal.scale))
        for j, name in enumerate(target_names_of(names, normal.event_size))
    }
    shape_params = np.ascontiguousarray(normal.shape_params)
    if shape_params.shape[-1]:
        columns["shape_params"] = arrow.FixedSizeListArray.from_arrays(
            arrow.array(shape_params.reshape(-1)), shape_params.shape[-1]
        )
    table = arrow.table(columns).replace_schema_metadata({"keras_mvn": header})
    parquet.write_table(table, path)


def _read_parquet(path: Path) -> tuple[Any, ...]:
    parquet = require("pyarrow.parquet", "load")
    table = parquet.read_table(path)
    metadata = (table.schema.metadata or {}).get(b"keras_mvn")
    header = _header(None if metadata is None else metadata.decode(), path)
    d, n = header["event_size"], table.num_rows
    numbers = np.stack([table.column(j).to_numpy() for j in range(2 * d)], axis=-1)
    shape_params = np.zeros((n, 0))
    if table.num_columns > 2 * d:
        flat = table.column("shape_params").combine_chunks().flatten().to_numpy()
        shape_params = flat.reshape(n, flat.size // max(n, 1))
    return header, numbers[:, :d], numbers[:, d:], shape_params


_SUFFIXES: dict[str, tuple[Callable[..., None], Callable[..., tuple[Any, ...]]]] = {
    ".npz": (_write_npz, _read_npz),
    ".parquet": (_write_parquet, _read_parquet),
}


def _of_suffix(path: Path) -> tuple[Callable[..., None], Callable[..., tuple[Any, ...]]]:
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} has suffix {path.suffix!r}; expected one of {list(_SUFFIXES)}.")
    return _SUFFIXES[path.suffix]
