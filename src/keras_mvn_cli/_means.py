"""The regressors that the networks of a fit directory are over, stored without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_mvn._core.files import read_json, write_json
from keras_mvn._core.optional import require
from keras_mvn._training.member import Center
from keras_mvn.estimator._mean import Average, Fitted

__all__ = ["load_means", "save_means"]

MEANS = "means"
INDEX = "means.json"

TRUSTED = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
"""Classes that a file may hold besides those that skops trusts: arrays of the nodes of a tree."""


def save_means(centers: Sequence[Center], fits: Sequence[Fitted], folder: Path) -> None:
    """Write the regressors of each fold into a fit directory, if there are any."""
    if not fits:
        return
    skops = require("skops.io", "keras-mvn fit --mean")
    (folder / MEANS).mkdir(exist_ok=True)
    names = [f"fold_{i:02d}.skops" for i in range(len(fits))]
    for name, fit in zip(names, fits, strict=True):
        skops.dump(fit.regressors, folder / MEANS / name, compression=zipfile.ZIP_DEFLATED)
    write_json(folder / MEANS / INDEX, {"files": names, "averaged": len(centers) < len(fits)})


def load_means(folder: Path) -> list[Center]:
    """Load what `save_means` wrote: what network i is over, at i modulo their number.

    Raises:
        OSError: a file is missing.

    """
    if not (folder / MEANS).is_dir():
        return []
    skops = require("skops.io", "a model that was fitted with --mean")
    index = read_json(folder / MEANS / INDEX)
    fits = [_loaded(skops, folder / MEANS / name) for name in index["files"]]
    return [Average(fits)] if index["averaged"] else list(fits)


def _loaded(skops: Any, file: Path) -> Fitted:
    return Fitted(skops.load(file, trusted=TRUSTED))
