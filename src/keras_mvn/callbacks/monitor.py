"""A callback that monitors the predicted covariance on a fixed batch during training."""

from __future__ import annotations

import csv
import importlib
import math
from pathlib import Path
from typing import Any, final

import keras
import numpy as np

from keras_mvn._core.checks import whole
from keras_mvn._core.types import Array
from keras_mvn.callbacks._heat_map import heat_map
from keras_mvn.callbacks._running_model import find_head, to_numpy
from keras_mvn.covariances.links import KNEE
from keras_mvn.distributions import MultivariateNormal
from keras_mvn.layers import MultivariateNormalHead
from keras_mvn.layers._find_heads import output_of

__all__ = ["CovarianceMonitor"]


@final
class CovarianceMonitor(keras.callbacks.Callback):
    """Log properties of the predicted covariance on a fixed batch after each epoch.

    | name in the logs | meaning |
    | --- | --- |
    | `cov_min_eigenvalue` | smallest eigenvalue of any row's correlation matrix |
    | `cov_max_eigenvalue` | largest eigenvalue of any row's correlation matrix |
    | `cov_condition` | largest condition number of any row's correlation matrix |
    | `cov_condition_in_units` | the same for Σ; also grows if the targets have different units |
    | `cov_half_log_det` | mean ½ log det Σ, in log units of y |
    | `cov_squared_z` | mean (y − μ)ᵀ Σ⁻¹ (y − μ)/d: 1 if calibrated, more if overconfident |
    | `cov_at_floor` | fraction of rows with a scale below e⁻³ times the adapted one |

    The link of the scale has no hard floor; e⁻³, a twentieth of the adapted scale, is where it
    changes from exponential to reciprocal (`keras_mvn.covariances.links`). Values are NaN while
    predictions are not finite. The computation is in float64 and takes O(rows · d³): use a few
    hundred rows.

    `History` receives these logs, and so does any callback that comes *after* this one in the
    list: early stopping on `cov_squared_z`, `CSVLogger`, a progress bar.

    Args:
        x_probe: a batch of inputs.
        y_probe: (rows, d), the targets of x_probe, NaN where missing. None omits `cov_squared_z`.
        head: the head, if the model has several.
        output: name or index of the head's output, if the model has several.
        log_dir: directory for TensorBoard logs: the same numbers, and the mean correlation matrix
            as an image (blue −1, white 0, orange +1). Needs `pip install tensorboardX pillow`.
        csv_path: path of a CSV file for the same numbers. Training from epoch 0 overwrites it;
            resumed training appends.
        every: int ≥ 1, number of epochs between measurements. In between, the logs repeat the last
            one; TensorBoard and CSV don't.
        prefix: str, prefix of the names in the logs.

    Raises:
        ValueError: `every` < 1; in `fit`, there is no head or there are several heads or outputs,
            or y_probe and the predicted means have different shapes.
        ImportError: `log_dir` is given, but tensorboardX is not installed.

    >>> import keras, numpy as np
    >>> from keras_mvn.losses import NegativeLogLikelihood
    >>> model = keras.Sequential([keras.Input((1,)), MultivariateNormalHead(2)])
    >>> model.compile("adam", NegativeLogLikelihood())
    >>> x, y = np.ones((8, 1)), np.zeros((8, 2))
    >>> history = model.fit(x, y, verbose=0, callbacks=[CovarianceMonitor(x, y)])
    >>> sorted(history.history)[:3]
    ['cov_at_floor', 'cov_condition', 'cov_condition_in_units']

    """

    def __init__(
        self,
        x_probe: Any,
        y_probe: Any = None,
        head: MultivariateNormalHead | None = None,
        output: str | int | None = None,
        log_dir: str | Path | None = None,
        csv_path: str | Path | None = None,
        every: int = 1,
        prefix: str = "cov_",
    ) -> None:
        super().__init__()
        self.x_probe = x_probe
        self.y_probe = None if y_probe is None else to_numpy(y_probe)
        self.head = head
        self.output = output
        self.every = whole(every, "every", "a number of epochs", 1)
        self.prefix = prefix
        self._board = None if log_dir is None else _Board(Path(log_dir))
        self._table = None if csv_path is None else _Table(Path(csv_path))
        self._last: dict[str, float] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the head in the model."""
        self._head = find_head(self.model, self.head, "CovarianceMonitor")
        self._last = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure, and write to the logs, TensorBoard and CSV."""
        if self._last is None or epoch % self.every == 0:
            self._last = self._measure(epoch)
        if logs is not None:
            logs.update(self._last)

    def on_train_end(self, logs: Any = None) -> None:
        """Close the TensorBoard files."""
        if self._board is not None:
            self._board.close()

    def _measure(self, epoch: int) -> dict[str, float]:
        outputs = self.model.predict_on_batch(self.x_probe)
        # A strategy with several replicas lets each of them predict the whole batch.
        rows = len(keras.tree.flatten(self.x_probe)[0])
        y_pred = output_of(outputs, self.output, "CovarianceMonitor")[:rows]
        normal = _valid(y_pred, self._head)
        found = _NOTHING if normal is None else _properties(normal, _scale(y_pred, normal), self)
        if self.y_probe is not None:
            squared = math.nan if normal is None else _squared_z(normal, self.y_probe)
            found = {**found, "squared_z": squared}
        named = {self.prefix + name: value for name, value in found.items()}
        if self._table is not None:
            self._table.write(epoch, named)
        if self._board is not None:
            self._board.write(epoch, named, normal, self.prefix)
        return named

    @property
    def adapted_scale(self) -> Array:
        """The scale (d,) that `adapt` measured."""
        return to_numpy(self._head.origin_scale)


_NOTHING = dict.fromkeys(
    (
        "min_eigenvalue",
        "max_eigenvalue",
        "condition",
        "condition_in_units",
        "half_log_det",
        "at_floor",
    ),
    math.nan,
)


def _valid(y_pred: Array, head: MultivariateNormalHead) -> MultivariateNormal | None:
    """Return the normals of these moments, or None if y_pred is not finite or scales are not."""
    d = head.event_size
    if not np.isfinite(y_pred).all() or not (y_pred[..., d : 2 * d] > 0).all():
        return None
    return head.distribution(y_pred).moments()


def _scale(y_pred: Array, normal: MultivariateNormal) -> Array:
    d = normal.event_size
    return np.asarray(y_pred, np.float64)[..., d : 2 * d]


def _properties(
    normal: MultivariateNormal, scale: Array, monitor: CovarianceMonitor
) -> dict[str, float]:
    correlation = np.asarray(np.linalg.eigvalsh(normal.correlation), np.float64)
    unit = normal.stddev.max(axis=-1)[..., None, None]  # avoids overflow of squared units
    covariance = np.asarray(np.linalg.eigvalsh(normal.covariance / unit / unit), np.float64)
    at_floor = (scale < math.exp(-KNEE) * monitor.adapted_scale).any(axis=-1)
    values = (
        correlation.min(),
        correlation.max(),
        _condition(correlation),
        _condition(covariance),
        normal.half_log_det.mean(),
        at_floor.mean(),
    )
    return dict(zip(_NOTHING, map(float, values), strict=True))


def _condition(eigenvalues: Array) -> float:
    """Return the largest condition number; infinite if a matrix is singular in float64."""
    smallest, largest = eigenvalues[..., 0], eigenvalues[..., -1]
    singular = smallest <= 0
    return float(np.where(singular, np.inf, largest / np.where(singular, 1.0, smallest)).max())


def _squared_z(normal: MultivariateNormal, y: Array) -> float:
    """Return the mean squared Mahalanobis distance per observed target."""
    if y.shape != normal.mean.shape:
        raise ValueError(
            f"y_probe has shape {y.shape}, but the predicted means for x_probe have shape "
            f"{normal.mean.shape}. They must be equal."
        )
    observed = np.isfinite(y)
    if not observed.any():
        return math.nan
    squared = normal.mahalanobis(np.where(observed, y, np.nan), missing="marginalize") ** 2
    return float(squared.sum() / observed.sum())


class _Table:
    """A CSV file with one line per measurement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, epoch: int, values: dict[str, float]) -> None:
        start = epoch == 0 or not self.path.exists()
        with self.path.open("w" if start else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if start:
                writer.writerow(["epoch", *values])
            writer.writerow([epoch, *values.values()])


class _Board:
    """A writer of TensorBoard event files; it uses tensorboardX, which imports no backend."""

    def __init__(self, log_dir: Path) -> None:
        try:
            self._writer_class: Any = importlib.import_module("tensorboardX").SummaryWriter
        except ImportError as error:
            raise ImportError(
                "CovarianceMonitor(log_dir=…) needs tensorboardX to write TensorBoard logs: "
                "pip install tensorboardX pillow"
            ) from error
        self._log_dir = str(log_dir)
        self._writer: Any = None

    def write(
        self,
        epoch: int,
        values: dict[str, float],
        normal: MultivariateNormal | None,
        prefix: str,
    ) -> None:
        if self._writer is None:
            self._writer = self._writer_class(self._log_dir)
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        if normal is not None:
            d = normal.event_size
            mean = normal.correlation.reshape(-1, d, d).mean(axis=0)
            self._writer.add_image(
                f"{prefix}mean_correlation", heat_map(mean), epoch, dataformats="HWC"
            )

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
