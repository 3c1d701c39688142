"""The public function."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mvn._core.files import replacing
from keras_mvn.calibration import Recalibration
from keras_mvn.covariances import CovarianceLike
from keras_mvn.covariances._solver_free import written_out
from keras_mvn.ensemble import DeepEnsemble
from keras_mvn.exporting._ensemble import serving_of_ensemble
from keras_mvn.exporting._formats import Format
from keras_mvn.exporting._onnx import Onnx
from keras_mvn.exporting._outputs import checked_outputs
from keras_mvn.exporting._saved_model import SavedModel
from keras_mvn.exporting._serving import Serving, serving_of

__all__ = ["export"]

_FORMATS: dict[str, Format] = {written.name: written for written in (Onnx(), SavedModel())}

_TRIED_ROWS = (1, 5)
"""Numbers of rows to try a file with: not those that a backend traced."""

_TRIED_DIFFERENCE = 1e-2
"""Of the largest entry: a wrong translation, not the rounding of an ill-conditioned covariance."""

_LONGEST_REASON = 300
"""Characters of a converter's own message."""


def export(
    model: keras.Model | DeepEnsemble | Sequence[keras.Model],
    path: str | os.PathLike[str],
    format: str = "onnx",
    outputs: str | Sequence[str] = ("mean", "covariance"),
    *,
    output: str | int | None = None,
    covariance: CovarianceLike | None = None,
    layout: str = "packed",
    from_raw: bool = False,
    calibration: Recalibration | None = None,
    opset: int | None = None,
    verify: bool = True,
) -> None:
    """Write a file that serves the model's means and covariances, without keras-mvn or Keras.

    The file takes what the model takes, any number of rows at a time, and gives the outputs by
    name. What recalibrated the model is part of it. Formats such as ONNX have no solver: inverses
    and factorizations are written out as products. Of an ensemble the outputs are moments of the
    mixture, Σ* = mean(Σ_m) + mean((μ_m − μ*)(μ_m − μ*)ᵀ), in one file.

    "onnx" is one file for onnxruntime and others; it needs a converter, `pip install
    "keras-mvn[export]"` ("keras-mvn[export-jax]" on JAX). "saved_model" is a folder for TensorFlow,
    from the TensorFlow and JAX backends, with the endpoint `serve`. Target names, the meaning of
    each output, the structure, the number of networks and the version of keras-mvn are in the
    file's `metadata_props`, or in `assets.extra/keras_mvn.json`.

    Args:
        model: trained, with a `MultivariateNormalHead` as the last layer of an output; or any
            model whose output `covariance`, `layout` and `from_raw` describe. Or a `DeepEnsemble`
            or a sequence of such models, with the same inputs and heads.
        path: of the file, `*.onnx`, or of the folder. What was there is replaced, at the end.
        format: "onnx" or "saved_model".
        outputs: one or several of
            "mean" (..., d), in the units of the targets;
            "covariance" (..., d, d), in the products of their units, for Student's t too;
            "scale_tril" (..., d, d), its lower Cholesky factor;
            "stddev" (..., d), the square roots of its diagonal;
            "correlation" (..., d, d);
            "y_pred", what the model emits.
            "scale_tril" and "y_pred" are not those of an ensemble.
        output: name or index of the model's output that is meant, if several have a head.
        covariance: the structure, for a model without a head.
        layout: of that model's output, as its loss has it.
        from_raw: of that model's output, as its loss has it.
        calibration: of what the model predicts, if it is not in the model yet. For an ensemble,
            of the normal with the mean and the covariance of its mixture (`Mixture.moments`).
        opset: of ONNX; None is the converter's own.
        verify: run the file on random rows (zeros for inputs that are not floating-point) and
            compare with the model before it takes its place. Needs onnxruntime, or TensorFlow.

    Raises:
        ValueError: an unknown format or output, a backend that cannot write the format, a model
            without a head, members of an ensemble that differ, a path that holds something else, a
            model with operations that the format does not have, or a file that does not give the
            model's numbers. Nothing is written then.
        TypeError: neither a Keras model nor several, or a calibration of another kind.
        ImportError: a converter is not installed; the message names it.

    >>> import keras, keras_mvn, numpy as np, onnxruntime, tempfile
    >>> head = keras_mvn.layers.MultivariateNormalHead(2, target_names=["height", "weight"])
    >>> model = keras.Sequential([keras.Input((3,), name="x"), head])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(model, f"{folder}/model.onnx")
    ...     served = onnxruntime.InferenceSession(f"{folder}/model.onnx")
    ...     mean, covariance = served.run(None, {"x": np.zeros((5, 3), "float32")})
    >>> mean.shape, covariance.shape
    ((5, 2), (5, 2, 2))

    """
    models, target = _models(model), Path(path)
    names = checked_outputs(outputs, of_ensemble=len(models) > 1)
    chosen = _format(format)
    backend = keras.backend.backend()
    if opset is not None and not chosen.has_opsets:
        raise ValueError(f"opset={opset!r} is an argument of format='onnx' only.")
    chosen.check_path(target)
    if not target.parent.is_dir():
        raise ValueError(f"path={str(path)!r}: there is no folder {str(target.parent)!r}.")
    chosen.require(backend, verify)
    if calibration is not None and not isinstance(calibration, Recalibration):
        raise TypeError(
            "calibration must be None or a Recalibration (Temperature, PerTarget, MatrixScaling), "
            f"which changes covariances; received a {type(calibration).__name__}."
        )
    if calibration is not None and len(models) == 1:
        models = [calibration.apply(models[0])]
    servings = [serving_of(one, names, output, covariance, layout, from_raw) for one in models]
    serving: Serving = servings[0]
    if len(servings) > 1:
        serving = serving_of_ensemble(servings, calibration)
    with replacing(target) as fresh, _quiet():
        with _explained("be written", serving, chosen), written_out():
            chosen.write(serving, fresh, opset)
        if verify:
            _try_out(serving, chosen, fresh)


def _models(model: Any) -> list[keras.Model]:
    """One, or the members of an ensemble."""
    models = model
    if isinstance(model, DeepEnsemble):
        models = model.members
    elif not isinstance(model, list | tuple):
        models = [model]
    if not models or not all(isinstance(one, keras.Model) for one in models):
        raise TypeError(
            "model must be a Keras model, a DeepEnsemble, or a list of Keras models; received "
            f"{model!r}."
        )
    return list(models)


def _format(name: str) -> Format:
    if name not in _FORMATS:
        raise ValueError(f"format={name!r} is not known. Expected one of {list(_FORMATS)}.")
    backend = keras.backend.backend()
    if backend in _FORMATS[name].refusals:
        reason = _FORMATS[name].refusals[backend]
        raise ValueError(f"format={name!r} cannot be written from the {backend} backend: {reason}")
    return _FORMATS[name]


@contextlib.contextmanager
def _explained(what: str, serving: Serving, written: Format) -> Iterator[None]:
    """A converter's error as one that says what was tried, and what to do instead."""
    try:
        yield
    except (ImportError, OSError):
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ValueError(
            f"{serving.name} with covariance="
            f"{serving.prediction.reader.covariance.name!r} cannot {what} as "
            f"format={written.name!r} from the {keras.backend.backend()} backend "
            f"({type(cause).__name__}: {' '.join(str(cause).split())[:_LONGEST_REASON]}). "
            f"{written.hint}"
        ) from error


def _try_out(serving: Serving, written: Format, path: Path) -> None:
    """Compare what the file gives with what the model gives."""
    batches = [serving.signature.rows(number) for number in _TRIED_ROWS]
    with _explained("be run", serving, written):
        served = written.run(serving, path, batches)
    for rows, of_file in zip(batches, served, strict=True):
        for name, of_model in serving.on_numpy(rows).items():
            size = np.nanmax(np.abs(of_model), initial=0.0)
            tolerance = _TRIED_DIFFERENCE * size
            # What is NaN for the model (logarithms of random numbers) may be NaN in the file.
            if not np.allclose(of_file[name], of_model, rtol=0.0, atol=tolerance, equal_nan=True):
                difference = np.abs(of_file[name] - of_model).max()
                raise ValueError(
                    f"The file does not give the model's numbers: for {len(of_model)} random rows, "
                    f"output {name!r} differs by up to {difference:.3g} from values up to "
                    f"{size:.3g}. Converting to format={written.name!r} went wrong: try another "
                    "backend. verify=False writes the file all the same."
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Converters report on their inner life; what matters of it is raised."""
    names = ("torch.onnx", "tensorflow", "tf2onnx", "jax2onnx", "absl")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
