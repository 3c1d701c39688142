"""Diagnosis of a non-finite loss or weight, from the batch and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_mvn._core.types import Array
from keras_mvn.callbacks._running_model import to_numpy
from keras_mvn.layers import MultivariateNormalHead

__all__ = ["FAR", "Finding", "examine_data", "examine_inputs", "examine_prediction"]

FAR = 1e3
"""Distance from the adapted mean, in standard deviations, beyond which y is out of scale."""

_COLLAPSED = 1e-6
"""Fraction of the adapted scale below which a scale has collapsed."""

_SINGULAR = 1e12
"""Condition number of a correlation matrix above which it counts as singular."""

_DENSE = 1000
"""Largest number of targets for which the correlation matrices of a batch are examined."""

UNSCALED = 50.0
"""Root mean square of an input above which a network that does not normalize it may diverge."""

_NORMALIZING = (
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.Rescaling,
    keras.layers.Embedding,
)
"""Layers after which the size of an input tells nothing about that of the first units."""

_MOST = 10
"""Maximum number of rows listed in a message; `Finding.rows` has all of them."""


@dataclass(frozen=True)
class Finding:
    """One problem found in the data or in the predictions."""

    cause: str
    """"x", "y", "units", "inputs", "scale", "condition", "prediction" or "learning_rate"."""
    text: str
    """A human-readable description."""
    rows: tuple[int, ...] = ()
    """Affected rows of the batch, or of the table."""
    targets: tuple[str, ...] = ()
    """Names or numbers of the affected targets."""


def examine_data(
    data: Any, head: MultivariateNormalHead | None, missing_allowed: bool
) -> list[Finding]:
    """Find problems in x, y or the units of y that do not depend on the weights.

    Args:
        data: (x, y) or (x, y, sample_weight), as `fit` passes it to the training step.
        head: the head, for target names and units; None checks for non-finite values only.
        missing_allowed: bool, whether NaN in y marks a missing value, as configured in the loss.

    """
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    found = []
    for part in keras.tree.flatten(x):
        found += _not_finite("x", to_numpy(part), None, missing_allowed=False)
    for part in keras.tree.flatten(y):
        values = _counted(to_numpy(part), weight)
        found += _not_finite("y", values, head, missing_allowed)
        if head is not None:
            found += _out_of_scale(values, head)
    return found


def examine_inputs(data: Any, model: Any) -> list[Finding]:
    """Find inputs far from zero in a model that does not normalize them, as a pressure in Pa."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    if any(isinstance(layer, _NORMALIZING) for layer in layers):
        return []
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    found = []
    for part in keras.tree.flatten(x):
        values = np.asarray(to_numpy(part))
        if values.ndim < 2 or values.dtype.kind != "f":
            continue
        columns = values.reshape(-1, values.shape[-1]).astype(np.float64)
        with np.errstate(all="ignore"):
            size, center, spread = (
                np.sqrt(np.mean(columns**2, axis=0)),
                columns.mean(axis=0),
                columns.std(axis=0),
            )
        far = np.flatnonzero(np.isfinite(size) & (size > UNSCALED))
        if len(far):
            worst = far[np.argmax(size[far])]
            text = (
                f"inputs are not scaled: column {_some(far)} of x, with mean {center[worst]:.4g} "
                f"and standard deviation {spread[worst]:.3g} in column {worst}. Put a "
                "keras.layers.Normalization that has seen x_train (its adapt method) before the "
                "first layer"
            )
            found.append(Finding("inputs", text))
    return found


def examine_prediction(y_pred: Any, head: MultivariateNormalHead) -> list[Finding]:
    """Find problems in a prediction of the head: non-finite, collapsed or singular."""
    prediction, d = to_numpy(y_pred), head.event_size
    if prediction.shape[-1] != head.compute_output_shape((None, 1))[-1]:
        return []  # not the direct output of the head
    finite = np.asarray(np.isfinite(prediction).all(axis=-1))
    if not finite.all():
        rows = _rows(~finite)
        return [Finding("prediction", f"the prediction is not finite in {_list(rows)}", rows)]
    scale = prediction[..., d : 2 * d]
    relative = scale / to_numpy(head.origin_scale)
    collapsed = relative < _COLLAPSED
    if collapsed.any():
        rows, targets = _rows(collapsed), _targets(collapsed, head)
        text = (
            f"collapsed scale: {relative.min():.1e} of the adapted scale, in {_list(rows)}, "
            f"targets {', '.join(targets)}"
        )
        return [Finding("scale", text, rows, targets)]
    if d > _DENSE:
        return []
    with np.errstate(all="ignore"):
        eigenvalues = np.linalg.eigvalsh(head.distribution(prediction).correlation)
        singular = ~(eigenvalues[..., -1] < _SINGULAR * eigenvalues[..., 0])
    if singular.any():
        rows = _rows(singular)
        text = (
            f"the condition number of the correlation matrix exceeds {_SINGULAR:.0e} in "
            f"{_list(rows)}"
        )
        return [Finding("condition", text, rows)]
    return []


def _counted(y: Array, weight: Any) -> Array:
    """Return y with rows of weight 0 replaced by zeros, so that no problem is found in them."""
    if weight is None or keras.tree.is_nested(weight):
        return y
    weights = to_numpy(weight).reshape(len(y), -1).any(axis=-1)
    return np.where(weights.reshape(-1, *[1] * (y.ndim - 1)), y, 0.0) if not weights.all() else y


def _not_finite(
    cause: str, values: Array, head: MultivariateNormalHead | None, missing_allowed: bool
) -> list[Finding]:
    bad = np.isinf(values) if missing_allowed else ~np.isfinite(values)
    if not bad.any():
        return []
    rows = _rows(bad)
    kinds = " and ".join(
        name
        for name, there in (("NaN", np.isnan(values) & bad), ("inf", np.isinf(values)))
        if there.any()
    )
    targets = () if cause == "x" else _targets(bad, head)
    columns = _columns(bad) if cause == "x" else f", targets {', '.join(targets)}"
    way_out = (
        "fix or drop these rows"
        if cause == "x" or not np.isnan(values).any()
        else "if NaN means not observed, give the loss missing='marginalize'; otherwise drop these "
        "rows, or give them a sample weight of 0"
    )
    return [
        Finding(
            cause, f"{cause} contains {kinds} in {_list(rows)}{columns}: {way_out}", rows, targets
        )
    ]


def _out_of_scale(y: Array, head: MultivariateNormalHead) -> list[Finding]:
    d = head.event_size
    events = y if y.ndim > 1 else y[:, None]
    if events.shape[-1] != d:
        return []
    mean, stddev = to_numpy(head.origin_mean), to_numpy(head.origin_stddev)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.where(np.isfinite(events), np.abs(events - mean) / stddev, 0.0)
    far = distance > FAR
    if not far.any():
        return []
    rows, targets = _rows(far), _targets(far, head)
    text = (
        f"y is out of scale: up to {distance.max():.1e} standard deviations from the head's "
        f"origin in {_list(rows)}, targets {', '.join(targets)}: call head.adapt(y_train) before "
        "fit, or fix the outliers"
    )
    return [Finding("units", text, rows, targets)]


def _rows(bad: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=-1)).tolist())


def _targets(bad: NDArray[np.bool_], head: MultivariateNormalHead | None) -> tuple[str, ...]:
    columns = bad if bad.ndim > 1 else bad[:, None]
    numbers = np.flatnonzero(columns.reshape(-1, columns.shape[-1]).any(axis=0)).tolist()
    names = None if head is None else head.target_names
    if names is None or len(names) != columns.shape[-1]:
        return tuple(map(str, numbers))
    return tuple(names[i] for i in numbers)


def _columns(bad: NDArray[np.bool_]) -> str:
    return f", columns {_some(np.flatnonzero(bad.any(axis=0)))}" if bad.ndim == 2 else ""


def _list(rows: Sequence[int]) -> str:
    return f"{len(rows)} row{'s' if len(rows) > 1 else ''} ({_some(rows)})"


def _some(numbers: Any) -> str:
    shown = ", ".join(str(int(n)) for n in numbers[:_MOST])
    return shown + (", …" if len(numbers) > _MOST else "")
