"""The command `keras-mvn export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keras_mvn_cli import _options
from keras_mvn_cli._command import Command

__all__ = ["export"]


@click.command(cls=Command, short_help="Write the network as ONNX or SavedModel.")
@_options.model_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "saved_model"]),
    default="onnx",
    show_default=True,
    help="onnx for onnxruntime and other runtimes; saved_model for TensorFlow.",
)
@click.option(
    "--outputs",
    default="mean,covariance",
    show_default=True,
    help="Any of mean, covariance, scale_tril, stddev, correlation, y_pred, separated by commas; "
    "an ensemble has no scale_tril and no y_pred.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File or folder to write. Default: model.onnx or saved_model in MODEL_DIR.",
)
@_options.as_json
def export(model_dir: Path, form: str, outputs: str, out: Path | None, as_json: bool) -> None:
    """Write the network to a file that can be served without keras-mvn or Keras.

    The recalibration is included. An ensemble also becomes a single file, which outputs the
    moments of its mixture. The preprocessing of the table is not included: it is described in
    MODEL_DIR/preprocessing.json, and `inputs` in fit.json lists the network's inputs in order.

    \b
    Examples:
      keras-mvn export air
      keras-mvn export air --outputs mean,stddev,correlation --out air.onnx
    """  # noqa: D301  (click's \b keeps these line breaks)
    from keras_mvn.exporting import export as write
    from keras_mvn.serving._means import over_linear
    from keras_mvn_cli._console import Output, RefusalError
    from keras_mvn_cli._model import load_model

    output = Output(as_json)
    model = load_model(model_dir)
    networks, read = list(model.members), dict[str, Any]()
    names = model.about.get("over") or [model.about.get("mean")]  # "mean" before there were several
    kept = sorted({name for name in names if name} - {"ridge"})
    if kept:
        raise RefusalError(
            f"{model_dir} has networks that correct predictions of {' and '.join(kept)}, "
            "scikit-learn's, which cannot be exported with them. Fit with --mean none, or ridge."
        )
    predicting = model.predicting
    if any(one.center for one in predicting):
        networks = [
            one.network if one.center is None else over_linear(one.network, one.center)
            for one in predicting
        ]
        head = predicting[0].head
        read = {"covariance": head.covariance, "layout": head.layout}
    if len(networks) > 1:
        read["weights"] = [one.weight for one in predicting]
    path = out or model_dir / ("model.onnx" if form == "onnx" else "saved_model")
    wanted = tuple(name.strip() for name in outputs.split(","))
    try:
        write(networks, path, form, wanted, calibration=model.calibration, **read)
    except (ValueError, ImportError) as error:
        raise RefusalError(str(error)) from error
    output.say(f"{', '.join(wanted)} → {path}")
    output.result({"out": str(path), "format": form, "outputs": list(wanted)})
