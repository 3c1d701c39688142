"""Predictions for the test rows, and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_mvn import scores
from keras_mvn._core.files import write_json
from keras_mvn._core.optional import require
from keras_mvn._core.types import Array
from keras_mvn.distributions import Distribution
from keras_mvn.scores import Evaluation

__all__ = [
    "CONSTANT",
    "DIAGONAL",
    "MODEL",
    "UNCALIBRATED",
    "assess",
    "comparison",
    "load_test",
    "save_test",
    "write_metrics",
]

MODEL, UNCALIBRATED, DIAGONAL, CONSTANT = "model", "uncalibrated", "diagonal", "constant Σ"

FILES = {
    MODEL: "model.npz",
    UNCALIBRATED: "uncalibrated.npz",
    DIAGONAL: "diagonal.npz",
    CONSTANT: "constant_covariance.npz",
}
"""Name of a prediction → its file in `test/`."""

CELLS = "cell_nll_per_target"
"""Score of targets whose values repeat."""

MOST_PAIRS_OF = 60
"""Number of targets above which the variogram score has too many pairs."""


def save_test(
    folder: Path,
    predictions: Mapping[str, Distribution],
    y: Array,
    x: Mapping[str, np.ndarray],
    rows: np.ndarray,
) -> None:
    """Write `test/`: the predictions, the observed targets, and the raw input columns.

    Args:
        folder: Path of `test/`.
        predictions: name → (n,) distributions.
        y: (n, d), the observed targets.
        x: name of a raw input column → (n,).
        rows: (n,), row numbers in the file.

    """
    parquet = require("pyarrow.parquet", "keras-mvn fit")
    folder.mkdir(exist_ok=True)
    for name, normal in predictions.items():
        normal.save(folder / FILES[name])
    np.savez_compressed(folder / "y.npz", y=y, rows=rows)
    arrow = require("pyarrow", "keras-mvn fit")
    parquet.write_table(arrow.table(dict(x)), folder / "x.parquet")


def load_test(
    folder: Path,
) -> tuple[dict[str, Distribution], Array, dict[str, np.ndarray], np.ndarray]:
    """Load predictions, y, raw input columns and row numbers, as written by `save_test`."""
    parquet = require("pyarrow.parquet", "keras-mvn report")
    predictions = {
        name: Distribution.load(folder / file)
        for name, file in FILES.items()
        if (folder / file).is_file()
    }
    with np.load(folder / "y.npz") as file:
        y, rows = file["y"], file["rows"]
    table = parquet.read_table(folder / "x.parquet")
    x = {name: np.array(table.column(name).to_pylist()) for name in table.column_names}
    return predictions, y, x, rows


def assess(
    predictions: Mapping[str, Distribution], y: Array, target_scale: Array, resolution: Array
) -> dict[str, Evaluation]:
    """Compute all scores of all predictions; the model is compared with the diagonal.

    Args:
        predictions: name → (n,) distributions.
        y: (n, d), the observed targets.
        target_scale: (d,), units in which targets are compared.
        resolution: (d,), widths of the cells of targets whose values repeat, 0 for others.

    """
    wanted = None
    if y.shape[1] > MOST_PAIRS_OF:
        wanted = ["nll", "nll_per_target", "energy_score", "crps", "rmse", "coverage_90"]
        wanted += ["cell_nll_per_target"] if resolution.any() else []
    return {
        name: scores.evaluate(
            normal,
            y,
            missing="marginalize",
            reference=predictions.get(DIAGONAL) if name == MODEL else None,
            target_scale=target_scale,
            scores=wanted,
            resolution=resolution,
        )
        for name, normal in predictions.items()
    }


def comparison(metrics: Mapping[str, Any]) -> Any:
    """Return a `rich` table of `metrics.json`: the scores that show how good the model is."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    columns = {
        "NLL/target": ("nll_per_target", "{:.3f}", 1.0),
        "cell NLL": (CELLS, "{:.3f}", 1.0),
        "RMSE/sd": ("rmse", "{:.3f}", 1.0),
        "energy/sd": ("energy_score", "{:.3f}", 1.0),
        "joint 90 %": ("coverage_90", "{:.1f} %", 100.0),
        "marginal 90 %": ("marginal_coverage_90", "{:.1f} %", 100.0),
    }
    caption = "sd: standard deviation of the target in the training rows (report: test rows)"
    if all(CELLS in found["scores"] for found in metrics["test"].values()):
        caption += "; cell NLL: per target, of rounded values, whose density says little"
    else:
        del columns["cell NLL"]
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        caption=caption,
        caption_justify="left",
    )
    table.add_column("test rows", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for name, found in metrics["test"].items():
        cells = []
        for score, pattern, factor in columns.values():
            value = found["scores"].get(score, {}).get("mean")
            cells.append("–" if value is None else pattern.format(factor * value))
        table.add_row(name, *cells)
    return table


def write_metrics(
    folder: Path, found: Mapping[str, Evaluation], uncalibrated: Mapping[str, Evaluation]
) -> dict[str, Any]:
    """Write `metrics.json`, and return its contents.

    Args:
        folder: Path of the fit directory.
        found: evaluations of the model and of what it is compared with.
        uncalibrated: evaluations of the baselines before their recalibration.

    """
    metrics = {
        "reference": DIAGONAL if DIAGONAL in found else None,
        "test": {name: evaluation.to_dict() for name, evaluation in found.items()},
        "baselines_uncalibrated": {
            name: evaluation.to_dict() for name, evaluation in uncalibrated.items()
        },
    }
    write_json(folder / "metrics.json", metrics)
    return metrics
