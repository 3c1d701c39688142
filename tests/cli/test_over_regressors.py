"""The command with `--mean`: networks over other regressors, written, read again, told."""

import json

import numpy as np
import onnxruntime
import pandas
import pytest

from commands import refused, run
from keras_mvn._training import stacking
from keras_mvn._training.absent_inputs import predict_beyond
from keras_mvn.estimator import _material, _mean
from keras_mvn.estimator._regressors import NAMED
from keras_mvn.serving import FittedModel
from keras_mvn.serving._means import load_means, save_means
from keras_mvn.serving.fitted_model import recalibrated

pytestmark = [pytest.mark.once, pytest.mark.slow]

QUICK = ["--epochs", 2, "--hidden", 4, "--covariance", "cholesky", "--tails", "normal"]
QUICK += ["--embedding", "none"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 120, 2))
    frame = pandas.DataFrame(
        np.hstack([x, np.floor(2 * x) + 0.2 * noise]).round(4), columns=list("uvab")
    )
    path = tmp_path_factory.mktemp("over") / "t.csv"
    frame.to_csv(path, index=False)
    return path


def means_of_test_rows(out):
    return np.load(out / "test" / "model.npz")["mean"]


@pytest.mark.parametrize("folds", ["4", "none"])
def test_what_is_read_again_predicts_as_what_was_fitted(table, tmp_path, folds):
    out, again = tmp_path / "fit", tmp_path / "p.csv"
    run("fit", table, "--targets", "a,b", "--out", out, "--mean", "trees", "--cv", folds,
        "--no-baselines", *QUICK)  # fmt: skip
    run("predict", out, table, "--out", again)
    rows = np.load(out / "split.npz")["test"]
    read = pandas.read_csv(again)[["a_mean", "b_mean"]].to_numpy()[rows]
    np.testing.assert_allclose(read, means_of_test_rows(out), rtol=1e-4, atol=1e-5)
    y = pandas.read_csv(table)[["a", "b"]].to_numpy()[rows]
    assert np.mean((read - y) ** 2) < 0.5 * y.var()  # after two epochs: by the trees


def test_what_was_chosen_is_told_and_is_what_baselines_are_over(table, tmp_path):
    out = tmp_path / "fit"
    said = run("fit", table, "--targets", "a,b", "--out", out, "--cv", "none", "--no-stack",
               *QUICK).output  # fmt: skip
    about = json.loads((out / "fit.json").read_text())
    assert set(about["over"]) == {"gaussian_process"}
    assert [one["mean"] for one in about["selection"]] == ["gaussian_process", None]
    assert "by NLL per target on held-out rows: cholesky, over gaussian_process" in said
    assert any("cross-fitted predictions of Gaussian process" in one for one in about["decisions"])
    found = json.loads((out / "metrics.json").read_text())["test"]
    errors = {name: one["scores"]["rmse"]["mean"] for name, one in found.items()}
    assert errors["diagonal"] == pytest.approx(errors["model"], rel=0.3)


@pytest.fixture(scope="module")
def mixed(table, tmp_path_factory):
    """A fit whose predictions are mixtures of candidates of different kinds."""
    out = tmp_path_factory.mktemp("mixed") / "fit"

    def voted(score, candidates, gain):
        return np.array([0.5, 0.2, *[0.0] * (candidates - 3), 0.3]), 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacking, "_voted", voted)
        run("fit", table, "--targets", "a,b", "--out", out, "--cv", "3", *QUICK)
    return out


def test_mixtures_are_read_again(mixed, table, tmp_path):
    about = json.loads((mixed / "fit.json").read_text())
    assert sum(about["weights"]) == pytest.approx(1.0)
    assert len(about["weights"]) == len(about["over"]) == 9
    assert len(set(about["over"])) > 1
    assert any(one.startswith("predictions: mixtures, best on") for one in about["decisions"])
    run("predict", mixed, table, "--out", tmp_path / "p.csv")
    rows = np.load(mixed / "split.npz")["test"]
    read = pandas.read_csv(tmp_path / "p.csv")[["a_mean", "b_mean"]].to_numpy()[rows]
    np.testing.assert_allclose(read, means_of_test_rows(mixed), rtol=1e-4, atol=1e-5)


def test_mixtures_are_reported(mixed):
    text = (mixed / "report.md").read_text()
    assert "mixtures, best on held-out rows: 50%" in text
    assert "no network" in text
    assert "cross-fitted predictions of" in text


@pytest.mark.parametrize("folds", ["3", "none"])
def test_ridge_regressions_are_exported(table, tmp_path, folds):
    out = tmp_path / "fit"
    run("fit", table, "--targets", "a,b", "--out", out, "--mean", "ridge", "--cv", folds,
        "--no-baselines", *QUICK)  # fmt: skip
    assert_exported(out, table)


def assert_exported(out, table):
    run("export", out, "--outputs", "mean,covariance")
    x = pandas.read_csv(table)[["u", "v"]].to_numpy(np.float32)[:20]
    session = onnxruntime.InferenceSession(out / "model.onnx")
    mean, covariance = session.run(None, {session.get_inputs()[0].name: x})
    model = FittedModel.load(out)
    expected = recalibrated(model.calibration, predict_beyond(model.predicting, x, None))
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(covariance, expected.covariance, rtol=1e-3, atol=1e-6)


def test_mixtures_over_ridge_regressions_are_exported_with_their_weights(table, tmp_path):
    out = tmp_path / "fit"

    def voted(score, candidates, gain):
        return np.array([0.6, 0.1, 0.3]), 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacking, "_voted", voted)
        patch.setattr(_material, "NAMED", {"ridge": NAMED["ridge"]})
        run(
            "fit",
            table,
            "--targets",
            "a,b",
            "--out",
            out,
            "--cv",
            "none",
            "--members",
            1,
            "--no-baselines",
            *QUICK,
        )
    assert json.loads((out / "fit.json").read_text())["weights"] == [0.6, 0.3, 0.1]
    assert_exported(out, table)


def test_trees_are_not(table, tmp_path):
    out = tmp_path / "fit"
    run("fit", table, "--targets", "a,b", "--out", out, "--mean", "trees", "--cv", "none",
        "--no-baselines", *QUICK)  # fmt: skip
    assert "correct predictions of trees" in refused("export", out)
    assert "--mean none" in refused("export", out)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("mean", NAMED)
def test_all_regressors_are_kept_without_pickle(mean, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(60, 2))
    fits = [
        _mean.Fitted([_mean.regressor_for(mean).fit(x, y[:, j]) for j in range(2)])
        for _ in range(2)
    ]
    average = _mean.Average(fits)
    save_means([fits[1], None, average], fits, tmp_path)
    second, nothing, both = load_means(tmp_path)
    assert nothing is None
    np.testing.assert_array_equal(second.predict(x), fits[1].predict(x))
    np.testing.assert_array_equal(both.predict(x), average.predict(x))


@pytest.mark.parametrize("mean", ["trees", "forest"])
def test_damaged_trees_are_refused(mean, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 3)), rng.normal(size=200)
    regressor = _mean.regressor_for(mean).fit(x, y)
    if mean == "trees":
        regressor._predictors[0][0].nodes["left"][0] = 10_000
    else:
        regressor.estimators_[0].tree_.children_left[0] = 10_000
    fits = [_mean.Fitted([regressor])]
    save_means(fits, fits, tmp_path)
    with pytest.raises(OSError, match="is damaged: a tree has nodes that refer to none"):
        load_means(tmp_path)
