"""MLflow: a model as a python function, and a fit with its parameters, scores and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_mvn._core.files import read_json
from keras_mvn._core.optional import require
from keras_mvn._core.version import __version__
from keras_mvn.serving import BatchPredictor

__all__ = ["log_fit", "log_model"]

PACKAGES = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}
"""What a backend needs to be installed."""

LONGEST = 500
"""Maximum number of characters that MLflow stores of a parameter."""


def log_model(
    model: Any,
    name: str = "model",
    *,
    outputs: Sequence[str] = ("mean", "stddev", "interval"),
    level: float = 0.9,
    keep: Sequence[str] | Mapping[str, str] = (),
    **options: Any,
) -> Any:
    """Log a model to MLflow, as a python function whose `predict` gives a plain table.

    Its `predict` takes a data frame with the columns of training, which may have missing cells, and
    returns the columns that `serving.BatchPredictor` does. The process that loads it must have the
    same version of keras-mvn, and chooses its backend as any other (`KERAS_BACKEND`).

    Args:
        model: what `BatchPredictor` takes: a fit directory, a fitted estimator or a network.
        name: name of the model in the run.
        outputs: which columns to return for each target, as in `BatchPredictor`.
        level: float in (0, 1), probability of the intervals.
        keep: columns of the table to copy to the front of the predictions.
        **options: further arguments of `mlflow.pyfunc.log_model`, such as
            `registered_model_name`, or `pip_requirements` in place of keras-mvn and the backend.

    Returns:
        MLflow's `ModelInfo`.

    Raises:
        ImportError: MLflow is not installed.
        ValueError, TypeError: as from `BatchPredictor`.

    """
    mlflow = require("mlflow", "integrations.log_model")
    predictor = BatchPredictor(model, outputs, level, keep)
    backend = keras.backend.backend()
    defaults = {
        "pip_requirements": [f"keras-mvn[cli]=={__version__}", PACKAGES[backend]],
        "metadata": {"keras_mvn": __version__, "keras_backend": backend},
    }
    return mlflow.pyfunc.log_model(
        name=name, python_model=_python_model(mlflow, predictor), **{**defaults, **options}
    )


def log_fit(folder: str | Path, name: str = "model", **options: Any) -> Any:
    """Log what `keras-mvn fit` wrote to the active run: settings, scores, report and model.

    Parameters are those of the command; metrics are the scores of the test rows, such as
    `test.nll_per_target` or `test.coverage_90`, with those of the baselines beside them
    (`test.constant.nll_per_target`); `report.html` and `model_card.md` are artifacts.

    Args:
        folder: the fit directory.
        name: name of the model in the run.
        **options: further arguments of `log_model`.

    Returns:
        MLflow's `ModelInfo`.

    Raises:
        ImportError: MLflow is not installed.
        OSError: the folder is not a fit directory.

    """
    mlflow = require("mlflow", "integrations.log_fit")
    folder = Path(folder)
    about = read_json(folder / "fit.json")
    logged = {key: str(value)[:LONGEST] for key, value in about["options"].items()}
    mlflow.log_params({**logged, "targets": ", ".join(about["targets"])[:LONGEST]})
    mlflow.log_metrics(_metrics(read_json(folder / "metrics.json")["test"]))
    for file in ("report.html", "model_card.md"):
        if (folder / file).is_file():
            mlflow.log_artifact(str(folder / file))
    return log_model(folder, name, **options)


def _metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores by names that MLflow accepts."""
    metrics = {}
    for name, evaluation in found.items():
        prefix = "test" if name == "model" else f"test.{name}"
        for score, value in evaluation["scores"].items():
            if value["mean"] is not None:
                metrics[f"{prefix}.{score}"] = float(value["mean"])
    return metrics


def _python_model(mlflow: Any, predictor: BatchPredictor) -> Any:
    """Return the predictor in the form that MLflow stores."""

    class PredictiveDistribution(mlflow.pyfunc.PythonModel):
        """Predictions of keras-mvn as a table."""

        def __init__(self, predictor: BatchPredictor) -> None:
            self.predictor = predictor

        # Without annotations, which MLflow would read as those of a schema.
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            """Return the predictions for the rows of a table."""
            return self.predictor(model_input)

    return PredictiveDistribution(predictor)
