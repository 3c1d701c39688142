"""The regressors that the networks of a fit directory are over, stored without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mvn._core.files import read_json, write_json
from keras_mvn._core.optional import require
from keras_mvn._training.member import Center, Centered
from keras_mvn.estimator._mean import Average, Fitted
from keras_mvn.estimator._regressors import NAMED
from keras_mvn.layers import SoftClip
from keras_mvn.layouts import get

__all__ = ["load_means", "over_linear", "save_means"]

MEANS = "means"
INDEX = "means.json"


def save_means(centers: Sequence[Center | None], fits: Sequence[Fitted], folder: Path) -> None:
    """Write the regressors of each fold into a fit directory, if there are any.

    Args:
        centers: what network i is over, at i modulo their number; None for nothing.
        fits: the regressors of which these are, or are averages.
        folder: the fit directory.

    """
    if not fits:
        return
    skops = require("skops.io", "keras-mvn fit --mean")
    (folder / MEANS).mkdir(exist_ok=True)
    names = [f"fold_{i:02d}.skops" for i in range(len(fits))]
    for name, fit in zip(names, fits, strict=True):
        kept = {"regressors": fit.regressors, "limits": fit.limits and _range(fit.limits)}
        skops.dump(kept, folder / MEANS / name, compression=zipfile.ZIP_DEFLATED)
    number = {id(fit): i for i, fit in enumerate(fits)}
    over = [[] if one is None else [number[id(fit)] for fit in one.fits] for one in centers]
    write_json(folder / MEANS / INDEX, {"files": names, "over": over})


def load_means(folder: Path) -> list[Center | None]:
    """Load the `centers` that `save_means` wrote.

    Raises:
        OSError: a file is missing.

    """
    if not (folder / MEANS).is_dir():
        return []
    skops = require("skops.io", "a model that was fitted with --mean")
    index = read_json(folder / MEANS / INDEX)
    fits = [_loaded(skops, folder / MEANS / name) for name in index["files"]]
    if "over" not in index:  # written before networks were over different regressors
        return [Average(fits)] if index["averaged"] else list(fits)
    averages: dict[tuple[int, ...], Center | None] = {(): None}
    for numbers in map(tuple, index["over"]):
        if numbers not in averages:
            found = [fits[i] for i in numbers]
            averages[numbers] = found[0] if len(found) == 1 else Average(found)
    return [averages[tuple(numbers)] for numbers in index["over"]]


def over_linear(network: Any, center: Center) -> Any:
    """Return a network of the table's inputs alone: with a linear center inside, for export.

    The center limits its inputs as the network does, and is found by its predictions:
    m(x) = m(c) + (x − c) W, c the middle of the inputs' range, from which differences keep their
    precision in float32.
    """
    member = Centered(network, center)
    limits, head = member.limits, member.head
    assert limits is not None
    middle = 0.5 * (limits.lower + limits.upper)
    at_middle = center.predict(middle[None])
    steps = np.maximum(0.5 * (limits.upper - limits.lower), 0.1 * limits.margin)
    ahead, behind = (center.predict(middle + sign * np.diag(steps)) for sign in (1, -1))
    slopes = (ahead - behind) / (2.0 * steps[:, None])
    raw = keras.Input((len(middle),))
    difference = limits(raw) - middle.astype(np.float32)
    mean = ops.matmul(difference, slopes.astype(np.float32)) + at_middle[0].astype(np.float32)
    y_pred = network(ops.concatenate([raw, mean], axis=-1))
    d, (logits, blocks) = head.event_size, get(head.layout).split(y_pred)
    parts = [] if logits is None else [logits]
    for block in blocks:
        parts += [block[:, :d] + mean, block[:, d:]]
    return keras.Model(raw, ops.concatenate(parts, axis=-1))


def _loaded(skops: Any, file: Path) -> Fitted:
    known = [name for one in NAMED.values() for name in one.stored]
    kept = skops.load(file, trusted=known)
    for regressor in kept["regressors"]:
        _require_sound(regressor, file)
    limits = None if kept["limits"] is None else SoftClip(**kept["limits"])
    return Fitted(kept["regressors"], None, limits)


def _range(limits: SoftClip) -> dict[str, Any]:
    """Return the arguments that make the layer anew."""
    return {"lower": limits.lower, "upper": limits.upper, "margin": limits.margin}


def _require_sound(regressor: Any, file: Path) -> None:
    """Check the nodes of trees, which scikit-learn follows without looking whether they exist.

    Raises:
        OSError: a node refers to one that is not after it, or to an input that there is not.

    """
    features = getattr(regressor, "n_features_in_", 0)
    for inner, left, right, feature in _nodes(regressor):
        at = np.flatnonzero(inner)
        for child in (left[at], right[at]):
            if not ((child > at) & (child < len(inner))).all():
                raise OSError(f"{file} is damaged: a tree has nodes that refer to none.")
        if not ((feature[at] >= 0) & (feature[at] < features)).all():
            raise OSError(f"{file} is damaged: a tree asks for inputs that there are not.")


def _nodes(regressor: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield which nodes have children, these children, and the inputs they ask for, by tree."""
    for one in getattr(regressor, "estimators_", ()):
        tree = one.tree_
        left, right = tree.children_left, tree.children_right
        yield (left != -1) | (right != -1), left, right, tree.feature
    for step in getattr(regressor, "_predictors", ()):
        for one in step:
            nodes = one.nodes
            left, right = (nodes[name].astype(np.int64) for name in ("left", "right"))
            yield nodes["is_leaf"] == 0, left, right, nodes["feature_idx"].astype(np.int64)
