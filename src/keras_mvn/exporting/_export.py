"""The function `export`."""

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
from keras_mvn.layers._find_heads import heads

__all__ = ["export"]

_FORMATS: dict[str, Format] = {written.name: written for written in (Onnx(), SavedModel())}

_TRIED_ROWS = (1, 5)
"""Numbers of rows for verifying a file; different from those that a backend traced."""

_TRIED_DIFFERENCE = 1e-2
"""Tolerance relative to the largest entry: allows rounding, but not a wrong conversion."""

_LONGEST_REASON = 300
"""Maximum number of characters quoted from a converter's error message."""


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
    weights: Sequence[float] | None = None,
    opset: int | None = None,
    verify: bool = True,
) -> None:
    """Write a file that serves the model's means and covariances, without keras-mvn or Keras.

    The file takes the inputs of the model, any number of rows at a time, and returns the outputs by
    name. It includes any recalibration of the model. Formats such as ONNX have no linear solver, so
    inverses and factorizations are expanded into products. For an ensemble, one file returns the
    moments of the mixture, Σ* = Σ w_m Σ_m + Σ w_m (μ_m − μ*)(μ_m − μ*)ᵀ.

    "onnx" is one file for onnxruntime and other runtimes; it needs a converter, `pip install
    "keras-mvn[export]"` ("keras-mvn[export-jax]" on JAX). "saved_model" is a folder for TensorFlow,
    written from the TensorFlow and JAX backends, with the endpoint `serve`. Target names, a
    description of each output, the structure, the number of networks and the version of keras-mvn
    are in the file's `metadata_props`, or in `assets.extra/keras_mvn.json`.

    Args:
        model: trained model with a head as the last layer of an output, or any model whose output
            is described by `covariance`, `layout` and `from_raw`; or a `DeepEnsemble` or a sequence
            of such models, with the same inputs and heads.
        path: path of the file, `*.onnx`, or of the folder. Existing content is replaced at the end.
        format: "onnx" or "saved_model".
        outputs: one or more of
            "mean" (..., d), in the units of the targets;
            "covariance" (..., d, d), in products of their units, also for Student's t;
            "scale_tril" (..., d, d), its lower Cholesky factor;
            "stddev" (..., d), the square roots of the diagonal of the covariance;
            "correlation" (..., d, d);
            "degrees_of_freedom" (...) and "scale_matrix" (..., d, d), covariance · (ν − 2)/ν, of a
            Student's t, whose location is "mean";
            "component_weights" (..., n), "component_means" (..., n, d) and
            "component_covariances" (..., n, d, d), of a network that predicts a mixture of n
            components, which has no "scale_tril";
            "y_pred", the output of the Keras model.
            For ensembles, "mean", "covariance", "stddev" and "correlation" are available.
        output: name or index of the model's output to export, if several have a head.
        covariance: the structure, for a model without a head.
        layout: layout of the output of a model without a head, as in its loss.
        from_raw: whether the output of a model without a head is raw, as in its loss.
        calibration: a `Recalibration` of the predictions, if the model does not include it yet. For
            an ensemble, it applies to the normal with the mean and the covariance of the mixture
            (`Mixture.moments`), or to all components if the networks predict mixtures.
        weights: of the models of an ensemble, positive; they are divided by their sum. None for
            equal ones.
        opset: int, ONNX opset; None: the default of the converter.
        verify: bool, whether to run the file on random rows (zeros for inputs that are not
            floating-point) and compare it with the model before moving it into place. Needs
            onnxruntime or TensorFlow.

    Raises:
        ValueError: the format or an output is unknown, weights do not fit, the backend cannot write
            the format, the model has no head, the members of an ensemble differ, path has other
            contents, the model has operations that the format does not support, or the file does
            not reproduce the model's outputs. Nothing is written then.
        TypeError: model is neither a Keras model nor several, or calibration is not a
            `Recalibration`.
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
        raise ValueError(f"opset={opset!r} can only be used with format='onnx'.")
    chosen.check_path(target)
    if not target.parent.is_dir():
        raise ValueError(
            f"path={str(path)!r}: there is no folder {str(target.parent)!r}. Create it first."
        )
    chosen.require(backend, verify)
    if calibration is not None and not isinstance(calibration, Recalibration):
        raise TypeError(
            "calibration must be None or a Recalibration (Temperature, PerTarget, MatrixScaling), "
            f"which corrects covariances; received a {type(calibration).__name__}."
        )
    mixtures = any(len(head.each_component()) > 1 for one in models for head in heads(one))
    if calibration is not None and (len(models) == 1 or mixtures):
        models, calibration = [calibration.apply(one) for one in models], None
    servings = [serving_of(one, names, output, covariance, layout, from_raw) for one in models]
    serving: Serving = servings[0]
    if len(servings) > 1:
        serving = serving_of_ensemble(servings, calibration, _shares(weights, len(servings)))
    with replacing(target) as fresh, _quiet():
        with _explained("be written", serving, chosen), written_out():
            chosen.write(serving, fresh, opset)
        if verify:
            _try_out(serving, chosen, fresh)


def _models(model: Any) -> list[keras.Model]:
    """Return a list of one model, or of the members of an ensemble."""
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


def _shares(weights: Sequence[float] | None, models: int) -> tuple[float, ...]:
    """Return weights with sum 1."""
    given = np.ones(models) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (models,) or not (np.isfinite(given) & (given > 0.0)).all():
        raise ValueError(
            f"weights={weights!r} must be {models} positive numbers, one for each model."
        )
    return tuple((given / given.sum()).tolist())


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
    """Re-raise a converter's error with what was attempted and what to do instead."""
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
    """Check that the file reproduces the outputs of the model."""
    batches = [serving.signature.rows(number) for number in _TRIED_ROWS]
    with _explained("be run", serving, written):
        served = written.run(serving, path, batches)
    for rows, of_file in zip(batches, served, strict=True):
        for name, of_model in serving.on_numpy(rows).items():
            size = np.nanmax(np.abs(of_model), initial=0.0)
            tolerance = _TRIED_DIFFERENCE * size
            # NaN from the model (logarithms of random numbers, say) may be NaN from the file.
            if not np.allclose(of_file[name], of_model, rtol=0.0, atol=tolerance, equal_nan=True):
                difference = np.abs(of_file[name] - of_model).max()
                raise ValueError(
                    f"The file does not reproduce the model: for {len(of_model)} random rows, "
                    f"output {name!r} differs by up to {difference:.3g} from values up to "
                    f"{size:.3g}. The conversion to format={written.name!r} is wrong: try another "
                    "backend, or pass verify=False to write the file nevertheless."
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and logs of converters, whose relevant errors are raised."""
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
