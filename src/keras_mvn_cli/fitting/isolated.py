"""Single values of a table that are far from all others, told by line and column."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_mvn._core.fences import described, fences
from keras_mvn._training.data import sample
from keras_mvn.tables import Preprocessing, Table
from keras_mvn_cli.fitting.networks import Arrays

__all__ = ["isolated_values"]


def isolated_values(
    table: Table, arrays: Arrays, rows: np.ndarray, preprocessing: Preprocessing
) -> list[str]:
    """Describe the values far from all others, and what is done with them: [] if there are none.

    Args:
        table: the table, which knows in which line a row is.
        arrays: the arrays to train on.
        rows: numbers of the arrays' rows in the table.
        preprocessing: the conversion of columns to inputs.

    """
    learned = np.sort(np.concatenate([arrays.split.train, arrays.split.validation]))
    used = np.sort(np.concatenate([learned, arrays.split.calibration]))
    said = []
    for values, part, names, done in (
        (arrays.y, learned, arrays.targets, "treated as missing in training"),
        (arrays.x, used, preprocessing.names, "limited to the range of the others"),
    ):
        chosen, some = sample(values, part)
        found = fences(some, codes=values is arrays.x)
        if not found.any:
            continue
        if values is arrays.x:
            some = preprocessing.in_units(some)
            found = type(found)(*(preprocessing.in_units(x[None])[0] for x in found))
        text = described(some, found, names, _place(table, rows[chosen]))
        said.append(f"{text}: far from all others, {done} (--isolated keep: left as it is)")
    return said


def _place(table: Table, numbers: np.ndarray) -> Callable[[int], str]:
    """Return the function that names the place of a row of a sample with these numbers."""
    return lambda i: table.place(int(numbers[i]))
