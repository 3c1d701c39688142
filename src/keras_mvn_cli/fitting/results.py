"""The output files of `keras-mvn fit`: test predictions, metrics, models, `fit.json`."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_mvn._core.fences import fences
from keras_mvn._core.files import write_json
from keras_mvn._core.types import Array
from keras_mvn._training import data as training_data
from keras_mvn._training.absent_inputs import DONORS as DONORS_KEPT
from keras_mvn._training.absent_inputs import Donors, predict_beyond
from keras_mvn.calibration import Recalibration
from keras_mvn.covariances._streaming import StreamingMoments
from keras_mvn.distributions import Distribution
from keras_mvn.estimator._regressors import NAMED
from keras_mvn.layers._find_heads import heads
from keras_mvn.serving._means import save_means
from keras_mvn.serving.fitted_model import (
    DONORS,
    MEMBERS,
    MODEL,
    recalibrated,
    save_calibration,
)
from keras_mvn_cli import _assessing
from keras_mvn_cli._console import Output
from keras_mvn_cli._fit_directory import FIT, FORMAT, FitFolder
from keras_mvn_cli._outside import Outside
from keras_mvn_cli._versions import versions
from keras_mvn_cli.fitting.drivers import drivers_of
from keras_mvn_cli.fitting.networks import Network, label_of
from keras_mvn_cli.fitting.options import FitOptions
from keras_mvn_cli.fitting.reporting import write_history
from keras_mvn_cli.fitting.table import Prepared, request_of

__all__ = ["about_fit", "assessed", "write_results"]

CUT_SHORT = "training was interrupted by ^C: the weights are the best up to then"


def assessed(
    prepared: Prepared, networks: Mapping[str, Network], folder: FitFolder, output: Output
) -> dict[str, Any]:
    """Write `test/` and `metrics.json`, and return the metrics."""
    test = prepared.arrays.split.test
    x = np.asarray(prepared.arrays.x[test])
    y = np.asarray(prepared.arrays.y[test])
    seen = ~np.isnan(y).all(axis=0)
    with output.progress("scoring the test rows"):
        donors = _donors(prepared)
        plain: dict[str, Distribution] = {
            name: predict_beyond(one.predicting, x, donors if name == _assessing.MODEL else None)
            for name, one in networks.items()
        }
        found = dict(_compared(networks, plain))
        shown = prepared.preprocessing.shown(prepared.raw)
        _assessing.save_test(folder.partial / "test", found, y, shown, prepared.rows[test])
        baselines = {
            name: normal
            for name, normal in plain.items()
            if name != _assessing.MODEL and networks[name].calibration is not None
        }
        scale = _target_stddev(prepared)[seen]
        resolution = networks[_assessing.MODEL].resolution[seen]
        evaluations, uncalibrated = (
            _assessing.assess(_margins(normals, seen), y[:, seen], scale, resolution)
            for normals in (found, baselines)
        )
    return _assessing.write_metrics(folder.partial, evaluations, uncalibrated)


def _donors(prepared: Prepared) -> Donors:
    rows = training_data.thinned(prepared.arrays.split.train, DONORS_KEPT)
    return Donors(np.asarray(prepared.arrays.x[rows], np.float32))


def _compared(
    networks: Mapping[str, Network], plain: Mapping[str, Distribution]
) -> Iterator[tuple[str, Distribution]]:
    """Yield (name, predictions) in the report's order; baselines are recalibrated, too."""
    for name in (_assessing.MODEL, _assessing.DIAGONAL, _assessing.CONSTANT):
        if name not in networks:
            continue
        calibration = networks[name].calibration
        yield name, recalibrated(calibration, plain[name])
        if name == _assessing.MODEL and calibration is not None:
            yield _assessing.UNCALIBRATED, plain[name]


def _margins(normals: Mapping[str, Distribution], seen: np.ndarray) -> Mapping[str, Distribution]:
    """Return the marginals of the targets observed in at least one test row."""
    if seen.all():
        return normals
    return {name: normal.marginal(np.flatnonzero(seen)) for name, normal in normals.items()}


def _target_stddev(prepared: Prepared) -> Array:
    """Return the standard deviations of the targets in the training rows: (d,)."""
    arrays = prepared.arrays
    found = StreamingMoments(arrays.y.shape[1], rank=0)
    training = training_data.Table(arrays.x, arrays.y, None, arrays.split.train)
    far = fences(training_data.sample(arrays.y, arrays.split.train)[1])
    found.update_all(map(far.regular, training.targets()))
    return np.sqrt(found.variance)


def about_fit(
    options: FitOptions,
    prepared: Prepared,
    networks: Mapping[str, Network],
    interrupted: bool,
    seconds: float,
) -> dict[str, Any]:
    """Return the contents of `fit.json`; `seconds` is the total time of the fit."""
    model, split = networks["model"], prepared.arrays.split
    rows = {name: len(part) for name, part in split._asdict().items()}
    rows["test"] = prepared.about["test_rows"]
    return {
        "format": FORMAT,
        "command": shlex.join(["keras-mvn", *sys.argv[1:]]),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "interrupted": interrupted,
        "outside": _outside(model, prepared),
        "drivers": drivers_of(prepared, model),
        "resumed": bool(options.resume),
        "source": Path(options.data).name,
        "file": prepared.about.get("file"),
        "rows_in_file": prepared.about["rows_in_file"],
        "rows": rows,
        "targets": list(prepared.preprocessing.targets),
        "target_stddev": _target_stddev(prepared).tolist(),
        "target_resolution": model.resolution.tolist(),
        "columns": prepared.preprocessing.columns,
        "inputs": prepared.preprocessing.names,
        "covariance": model.structure,
        "over": list(model.over),
        "weights": list(model.weights),
        "tails": _tails_in_words(model, prepared),
        "calibration": _in_words(model.calibration, options.calibration, rows),
        "members": len(model.members),
        "folds": prepared.about["folds"],
        "selection": [_plain(one) for one in model.selection],
        "decisions": [
            *prepared.about["decisions"],
            *_means_in_words(model),
            *_components_in_words(model),
            *_mixture_in_words(model),
            *([CUT_SHORT] if interrupted else []),
        ],
        "options": request_of(options)["options"],
        "seed": options.seed,
        "versions": versions(),
    }


def _outside(model: Network, prepared: Prepared) -> list[str]:
    """Describe the inputs of which the test rows are beyond the training rows."""
    limits = model.predicting[0].limits
    if limits is None:
        return []
    arrays = prepared.arrays
    found = Outside(limits, len(arrays.split.train))
    found.add(np.asarray(arrays.x[arrays.split.test]))
    return found.told(prepared.preprocessing.names, prepared.preprocessing.in_units)


def _means_in_words(model: Network) -> list[str]:
    """Say whose predictions the means are, or are corrected from."""
    corrected = {
        name
        for name, network in zip(model.over, model.members, strict=True)
        if name and not heads(network)[-1].ignores_inputs
    }
    return [
        f"means: {'networks correct ' if name in corrected else ''}cross-fitted predictions of "
        f"{NAMED[name].words} (--mean {name})"
        for name in model.means_used
    ]


def _components_in_words(model: Network) -> list[str]:
    """Say that every row has a mixture, if that was chosen."""
    n = len(heads(model.members[0])[-1].each_component())
    if n == 1:
        return []
    chosen = any(one["n_components"] == 1 for one in model.selection)
    return [
        f"predictions: mixtures of {n} components for every row, which may have several modes"
        f"{', better on held-out rows' if chosen else ''} (--components 1 for one distribution)"
    ]


def _mixture_in_words(model: Network) -> list[str]:
    """Say of which candidates the predictions are mixtures, if of several."""
    used = [one for one in model.selection if one["weight"] > 0.0]
    if len(used) < 2:
        return []
    parts = ", ".join(f"{one['weight']:.0%} {label_of(one)}" for one in used)
    return [f"predictions: mixtures, best on held-out rows: {parts} (--no-stack for the best one)"]


def _plain(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return one entry of the selection as JSON values."""
    kept = ["name", "tails", "embedding", "mean", "n_components", "weight", "validation_nll"]
    kept += ["epochs", "seconds"]
    values = {name: candidate[name] for name in kept}
    return {
        k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()
    }


def _tails_in_words(model: Network, prepared: Prepared) -> str:
    """Return what tails the predictions have, and how much better than the others they are."""
    by_tails: dict[str, float] = {}
    for one in (one for one in model.selection if one["n_components"] == 1):  # the best first
        by_tails.setdefault(one["tails"], one["validation_nll"])
    said = "normal"
    if model.tails == "t":
        said = f"Student's t, ν = {model.degrees_of_freedom:.3g}"
    if len(by_tails) < 2:
        return said
    other = {"t": "normal", "normal": "t"}[model.tails]
    d = prepared.arrays.targets_in_a_row(prepared.arrays.selecting)
    gain = (by_tails[other] - by_tails[model.tails]) / d
    than = {"t": "a normal", "normal": "a Student's t"}[model.tails]
    return f"{said}, chosen on held-out rows: {gain:.2g} nats per target better than {than}"


def _in_words(calibration: Recalibration | None, method: str, rows: Mapping[str, int]) -> str:
    if calibration is None:
        return ""
    of_rows = f"{rows['calibration']} calibration rows"
    if not rows["calibration"]:
        of_rows = f"{rows['train']} rows, each predicted by networks that had not seen it"
    if method not in _FACTORS:
        return f"{method}, fitted to {of_rows}."
    factor = calibration.get_config()["temperature"]
    return f"All standard deviations were multiplied by {factor:.3f}, {_FACTORS[method]} {of_rows}."


_FACTORS = {
    "coverage": "the factor at which 90 % regions contain 90 % of",
    "temperature": "the most likely factor on",
}


def write_results(
    folder: Path, prepared: Prepared, model: Network, method: str, about: dict[str, Any]
) -> None:
    """Write the models, the recalibration, the history, the split and `fit.json`."""
    if len(model.members) == 1:
        model.members[0].save(folder / MODEL)
    else:
        (folder / MEMBERS).mkdir(exist_ok=True)
        for i, member in enumerate(model.members):
            member.save(folder / MEMBERS / f"member_{i:02d}.keras")
    save_means(model.centers, model.means, folder)
    save_calibration(model.calibration, method, folder)
    np.save(folder / DONORS, _donors(prepared).rows.astype(np.float32))
    write_history(folder / "history.csv", model.histories)
    parts: dict[str, Any] = {
        name: prepared.rows[part] for name, part in prepared.arrays.split._asdict().items()
    }
    np.savez_compressed(folder / "split.npz", **parts)
    write_json(folder / FIT, about)
