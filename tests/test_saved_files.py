"""Files that keras-mvn 0.1.0 wrote load and predict the same: tests/data/files_of_0_1_0."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas
import pytest

import keras_mvn as kmvn
from keras_mvn._training.prediction import load_to_predict
from paths import DATA
from structures import STRUCTURES, named

FILES = DATA / "files_of_0_1_0"
SCORES = json.loads((FILES / "scores.json").read_text())
# 0.1.0 compared a Student's t with its normal; now the metric is the loss, and the region the t's.
SCORES["banded"] |= {
    "nll": SCORES["banded"]["loss"],
    "coverage_80": 19 / 24,
    "coverage_error_80": 0.8 - 19 / 24,
}


@pytest.fixture(scope="module")
def expected():
    with np.load(FILES / "predictions.npz") as file:
        return dict(file)


def close(actual, expected):
    """To float32, on another backend than the one that wrote the file."""
    error = np.abs(actual - expected)
    assert (error <= 2e-5 * np.abs(expected).max(axis=0)).all(), error.max()


def not_compiled(model):
    """The file says jit_compile=True, as Keras writes it on JAX; on PyTorch that takes minutes."""
    model.jit_compile = model.jit_compile and keras.backend.backend() != "torch"
    return model


def load(name):
    return not_compiled(keras.models.load_model(FILES / f"{name}.keras"))


def test_there_is_a_file_for_every_structure():
    assert sorted(SCORES) == sorted(named(structure) for structure in STRUCTURES)


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.elsewhere(name=["cholesky", "low_rank", "kronecker"])
def test_a_model_with_its_loss_and_metrics(name, expected):
    model = load(name)
    close(model.predict(expected["x"], verbose=0), expected[name])
    found = model.evaluate(expected["x"], expected["y"], batch_size=24, verbose=0, return_dict=True)
    assert {key: pytest.approx(value, rel=1e-4, abs=1e-5) for key, value in found.items()} == (
        SCORES[name]
    )


def test_a_model_trains_on(expected):
    model = load("cholesky")
    history = model.fit(expected["x"], expected["y"], batch_size=24, epochs=3, verbose=0)
    # Nothing is shrunk in `evaluate`; training adds the penalty of shrinkage=0.3.
    assert history.history["nll"][0] == pytest.approx(SCORES["cholesky"]["nll"], rel=1e-4)
    assert history.history["loss"][0] > SCORES["cholesky"]["loss"]
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_a_model_with_a_calibration_layer(expected):
    model = load("calibrated")
    close(model.predict(expected["x"], verbose=0), expected["MatrixScaling"])


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_distribution(suffix, expected):
    normal = kmvn.MultivariateNormal.load(FILES / f"distribution.{suffix}")
    assert normal.target_names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(normal.mean, expected["distribution_mean"])
    np.testing.assert_allclose(normal.covariance, expected["distribution_covariance"], rtol=1e-12)


def test_an_ensemble(expected):
    ensemble = kmvn.ensemble.DeepEnsemble.load(FILES / "ensemble")
    for member in ensemble.members:
        not_compiled(member)
    mixture = ensemble.predict(expected["x"])
    close(mixture.mean, expected["ensemble_mean"])
    close(mixture.covariance.reshape(24, -1), expected["ensemble_covariance"].reshape(24, -1))


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.elsewhere(name=["cholesky", "low_rank", "kronecker"])
def test_loading_to_predict_alone(name, expected):
    """Zeros in place of random initial weights, no optimizer: the same numbers."""
    model = load_to_predict(FILES / f"{name}.keras")
    assert not model.compiled
    close(model.predict(expected["x"], verbose=0), expected[name])


@pytest.mark.slow
def test_a_fit_directory_in_a_new_process(tmp_path):
    out = tmp_path / "predictions.csv"
    subprocess.run(
        [Path(sys.executable).with_name("keras-mvn"), "predict", "fit", "table.csv", "--out", out],
        cwd=FILES,
        check=True,
        capture_output=True,
    )
    found, expected = (pandas.read_csv(path) for path in (out, FILES / "fit_predictions.csv"))
    assert list(found) == list(expected)
    close(found.to_numpy(), expected.to_numpy())
