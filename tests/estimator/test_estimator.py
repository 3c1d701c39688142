"""The scikit-learn estimator: its conventions, its recipe, and what it promises on data."""

import copy
import pickle
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    PowerTransformer,
    StandardScaler,
)
from sklearn.utils.estimator_checks import parametrize_with_checks

import keras_mvn as kmvn
from keras_mvn._training.data import Batches, Part, Table, divide, moments
from keras_mvn._training.member import members_of, predict_distribution
from keras_mvn._training.prediction import predict
from keras_mvn._training.recipe import Recipe
from keras_mvn._training.train import train
from keras_mvn.covariances import Cholesky, Diagonal
from keras_mvn.distributions import TransformedDistribution, _transforms
from keras_mvn.distributions._fit_transform import fit_target_transform
from keras_mvn.estimator import MultivariateNormalRegressor
from predictions import within

SIGMA = np.array([[1.0, 0.8], [0.8, 2.0]])
SMALL = {
    "hidden": (8,),
    "epochs": 3,
    "random_state": 0,
    "tails": "normal",
    "cv": None,
    "embedding": None,
    "mean": None,
}
LINEAR = {  # a linear model and a constant covariance are near: one step an epoch will do
    "hidden": (),
    "epochs": 25,
    "batch_size": 1000,
    "learning_rate": 0.1,
    "calibration": None,
    "random_state": 0,
    "tails": "normal",
    "cv": None,
    "embedding": None,
    "mean": None,
}


def draw(n, seed=0, missing=0.0):
    """y = A x + noise of covariance SIGMA, far from standard units."""
    rng = np.random.default_rng(seed)
    x = rng.normal([0.0, 100.0, -3.0], [1.0, 20.0, 1e-3], size=(n, 3))
    mean = 50.0 + np.stack([x[:, 0], 0.1 * x[:, 1] - x[:, 0]], axis=1)
    y = mean + rng.multivariate_normal([0, 0], SIGMA, size=n)
    y[rng.random(y.shape) < missing] = np.nan
    return x, y, mean


def seen_by(estimator, x):
    model = estimator.model_ if hasattr(estimator, "model_") else estimator.ensemble_.members[0]
    return within(model, x)


@pytest.fixture(scope="module")
def fitted():
    keras.utils.set_random_seed(0)
    x, y, _ = draw(1000)
    settings = {"epochs": 80, "batch_size": 350, "learning_rate": 0.01, "random_state": 0}
    return MultivariateNormalRegressor(
        hidden=(16,), tails="normal", cv=None, embedding=None, mean=None, **settings
    ).fit(x, y)


# --- scikit-learn's conventions ------------------------------------------------------------------


_checks = parametrize_with_checks(
    [
        MultivariateNormalRegressor(
            hidden=(8,), epochs=3, tails="normal", cv=None, embedding=None, mean=None
        )
    ],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "batches are drawn at random",
        "check_sample_weight_equivalence_on_sparse_data": "the same; scikit-learn 1.6 calls it",
    },
).mark


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # few rows to calibrate with
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(_checks.args[0], list(_checks.args[1]), **_checks.kwargs)  # a generator
@pytest.mark.elsewhere(False)
def test_scikit_learn_checks(estimator, check):
    if keras.backend.backend() != "torch" and not _touches_the_backend(check):
        pytest.skip("arguments and attributes: checked with PyTorch")
    check(estimator)


def _touches_the_backend(check):
    """Whether it is about numbers that are fitted, or about copies of a fitted network."""
    words = ("pickle", "idempotent", "train", "nan_inf", "subset_invariance", "readonly")
    return any(word in check.func.__name__ for word in words)


@pytest.mark.once
def test_clone_keeps_every_parameter_as_given():
    given = {"hidden": [4], "covariance": Diagonal(), "loss": kmvn.losses.CRPS, "patience": 3}
    estimator = clone(MultivariateNormalRegressor(**given))
    assert {name: estimator.get_params()[name] for name in given} == given


@pytest.mark.once
@pytest.mark.slow
def test_grid_search_and_cross_validation():
    x, y, _ = draw(200)
    estimator = MultivariateNormalRegressor(**LINEAR)
    search = GridSearchCV(estimator, {"covariance": ["diagonal", "cholesky"]}, cv=2).fit(x, y)
    assert search.best_estimator_.head_.covariance == Cholesky()  # noise is correlated
    scores = cross_val_score(clone(estimator).set_params(covariance="cholesky"), x, y, cv=2)
    assert scores.mean() == pytest.approx(search.best_score_, rel=1e-6)


@pytest.mark.elsewhere(False)
def test_names_of_frames_and_pipelines_with_categories():
    x, y, _ = draw(120)
    table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(kind=np.repeat(["u", "v"], 60))
    targets = pd.DataFrame(y, columns=["left", "right"])
    columns = ColumnTransformer(
        [("one-hot", OneHotEncoder(), ["kind"])], remainder=StandardScaler()
    )
    model = make_pipeline(columns, MultivariateNormalRegressor(calibration=None, **SMALL))
    model.fit(table, targets)
    assert model[-1].target_names_ == ("left", "right")
    assert model[-1].predict_distribution(columns.transform(table)).target_names[1] == "right"
    alone = MultivariateNormalRegressor(calibration=None, **SMALL).fit(table[["a", "b"]], targets)
    assert list(alone.feature_names_in_) == ["a", "b"]
    assert alone.head_.target_names == ("left", "right")


@pytest.mark.elsewhere(False)
def test_one_dimensional_targets():
    x, y, _ = draw(100)
    estimator = MultivariateNormalRegressor(calibration=None, **SMALL).fit(x, y[:, 0])
    mean, stddev = estimator.predict(x, return_std=True)
    assert mean.shape == stddev.shape == (100,)
    assert estimator.predict_interval(x)[0].shape == (100,)
    assert estimator.predict_quantiles(x, [0.1, 0.5, 0.9]).shape == (3, 100)
    assert estimator.sample_y(x, 7).shape == (100, 7)
    expected = scipy.stats.norm.logpdf(y[:, 0], mean, stddev).mean()
    assert estimator.score(x, y[:, 0]) == pytest.approx(expected)


@pytest.mark.elsewhere(False)
def test_predictions_are_those_of_the_distribution(fitted):
    x, y, _ = draw(50, seed=1)
    normal = fitted.predict_distribution(x)
    mean, covariance = fitted.predict(x, return_cov=True)
    np.testing.assert_array_equal(mean, normal.mean)
    np.testing.assert_array_equal(covariance, normal.covariance)
    expected = [
        scipy.stats.multivariate_normal(m, c).logpdf(row)
        for m, c, row in zip(mean, covariance, y, strict=True)
    ]
    assert fitted.score(x, y) == pytest.approx(np.mean(expected))
    weight = np.arange(50.0)
    assert fitted.score(x, y, weight) == pytest.approx(np.average(expected, weights=weight))
    with pytest.raises(ValueError, match="must not be negative"):
        fitted.score(x, y, -weight)
    median = fitted.predict_quantiles(x, 0.5)
    np.testing.assert_allclose(median, mean)
    with pytest.raises(RuntimeError, match="At most one"):
        fitted.predict(x, return_std=True, return_cov=True)


@pytest.mark.elsewhere(False)
def test_samples_have_the_predicted_moments(fitted):
    x = draw(2, seed=1)[0]
    draws = fitted.sample_y(x, 20_000, random_state=1)
    assert draws.shape == (2, 2, 20_000)
    mean, covariance = fitted.predict(x, return_cov=True)
    error = 5 * np.sqrt(2.5 / 20_000)
    np.testing.assert_allclose(draws.mean(axis=-1), mean, atol=error)
    np.testing.assert_allclose(np.cov(draws[0]), covariance[0], atol=5 * 4 / np.sqrt(20_000))
    np.testing.assert_array_equal(draws, fitted.sample_y(x, 20_000, random_state=1))


@pytest.mark.elsewhere(False)
def test_many_rows_are_predicted_in_parts(fitted):
    x = draw(5000, seed=3)[0]
    expected = fitted.head_.distribution(fitted.model_.predict(x, verbose=0)).mean
    np.testing.assert_allclose(fitted.predict(x), expected, rtol=1e-5)


# --- what is learnt ------------------------------------------------------------------------------


def test_finds_mean_and_covariance_of_a_linear_problem(fitted):
    x, y, mean = draw(2000, seed=1)
    truth = scipy.stats.multivariate_normal([0, 0], SIGMA).logpdf(y - mean).mean()
    assert fitted.score(x, y) > truth - 0.1
    covariance = fitted.predict(x, return_cov=True)[1].mean(axis=0)
    np.testing.assert_allclose(covariance, SIGMA, rtol=0.2)
    inside = fitted.predict_region(x, 0.9).contains(y).mean()
    assert abs(inside - 0.9) < 0.05


@pytest.mark.elsewhere(False)
def test_same_state_same_predictions_and_global_generators_untouched():
    x, y, _ = draw(100)
    python, state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    settings = {**SMALL, "dropout": 0.2, "calibration": None}
    one, two = (MultivariateNormalRegressor(**settings).fit(x, y).predict(x) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert random.getstate() == python
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    other = MultivariateNormalRegressor(**{**settings, "random_state": 1}).fit(x, y)
    assert abs(other.predict(x) - one).max() > 1e-3


def test_gaps_in_y_are_marginalized():
    x, y, _ = draw(600, missing=0.3)
    y[5] = np.nan
    estimator = MultivariateNormalRegressor(**{**LINEAR, "epochs": 60}).fit(x, y)
    assert 5 not in np.concatenate(list(estimator.split_.values()))
    held_out, full, mean = draw(1000, seed=1)
    truth = scipy.stats.multivariate_normal([0, 0], SIGMA).logpdf(full - mean).mean()
    assert estimator.score(held_out, full) > truth - 0.25
    first = full.copy()
    first[:, 1] = np.nan
    normal = estimator.predict_distribution(held_out)
    expected = scipy.stats.norm.logpdf(first[:, 0], normal.mean[:, 0], normal.stddev[:, 0])
    assert estimator.score(held_out, first) == pytest.approx(expected.mean())


@pytest.mark.once
def test_weights_count_and_their_scale_does_not():
    rng = np.random.default_rng(0)
    x = np.zeros((400, 1))
    y = np.where(np.arange(400) % 2, 10.0, 0.0)[:, None] + rng.normal(size=(400, 1))
    weight = np.where(np.arange(400) % 2, 9.0, 1.0)
    estimator = MultivariateNormalRegressor(**LINEAR)
    one, ten = (clone(estimator).fit(x, y, factor * weight) for factor in (1.0, 10.0))
    assert one.predict(x[:1]) == pytest.approx(9.0, abs=0.5)  # a weighted mean
    np.testing.assert_allclose(one.predict(x), ten.predict(x), rtol=1e-5)
    np.testing.assert_allclose(one.history_["loss"], ten.history_["loss"], rtol=1e-4)


@pytest.mark.elsewhere(False)
def test_rows_without_weight_take_part_in_nothing():
    x, y, _ = draw(100)
    weight = (np.arange(100) >= 20).astype(float)
    estimator = MultivariateNormalRegressor(calibration=None, **SMALL).fit(x, y, weight)
    used = np.concatenate(list(estimator.split_.values()))
    np.testing.assert_array_equal(np.sort(used), np.arange(20, 100))


@pytest.mark.elsewhere(False)
def test_builder_makes_the_hidden_layers():
    x, y, _ = draw(60)
    built = []

    def builder(inputs):
        built.append(inputs.shape)
        return keras.layers.concatenate([inputs, keras.layers.Dense(5, "silu")(inputs)])

    estimator = MultivariateNormalRegressor(builder=builder, calibration=None, **SMALL).fit(x, y)
    assert built == [(None, 3)]
    assert estimator.head_.mean_dense.kernel.shape == (8, 2)
    with pytest.raises(ValueError, match="builder must take"):
        MultivariateNormalRegressor(builder=lambda inputs: 3, calibration=None).fit(x, y)


@pytest.mark.once
@pytest.mark.parametrize(
    "loss", ["nll", "crps", "student_t", kmvn.losses.StudentT("learned"), kmvn.losses.EnergyScore]
)
def test_losses_by_name_class_and_instance(loss):
    x, y, _ = draw(60, missing=0.1 if loss == "nll" else 0.0)
    covariance = "diagonal" if loss == "crps" else "precision_cholesky"
    tails = "normal" if loss in ("nll", "crps", kmvn.losses.EnergyScore) else "t"
    settings = {**SMALL, "calibration": None, "tails": tails}
    estimator = MultivariateNormalRegressor(covariance, loss=loss, **settings)
    assert np.isfinite(estimator.fit(x, y).score(x, y))
    assert (type(estimator.predict_distribution(x)).__name__ == "MultivariateNormal") == (
        tails == "normal"
    )
    assert estimator.model_.loss.reader.covariance.name == covariance


@pytest.mark.elsewhere(False)
def test_constant_correlation():
    x, y, _ = draw(80)
    estimator = MultivariateNormalRegressor(constant="shape", calibration=None, **SMALL).fit(x, y)
    correlation = estimator.predict_distribution(x).correlation[:, 0, 1]
    np.testing.assert_allclose(correlation, correlation[0], rtol=1e-5)


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.once
def test_parts_are_disjoint_and_of_the_sizes_asked_for(fitted):
    sizes = {name: len(rows) for name, rows in fitted.split_.items()}
    assert sizes == {"train": 700, "validation": 150, "calibration": 150}
    np.testing.assert_array_equal(
        np.sort(np.concatenate(list(fitted.split_.values()))), np.arange(1000)
    )


@pytest.mark.parametrize(
    ("n", "expected"), [(4, (3, 1, 0)), (40, (30, 10, 0)), (80, (40, 20, 20)), (10**6, None)]
)
@pytest.mark.once
def test_sizes_of_small_and_large_tables(n, expected):
    split = divide(np.arange(n), (0.15, 0.15), (20, 20), seed=0)
    sizes = tuple(len(part) for part in split)
    assert sizes == (expected or (900_000, 50_000, 50_000))


@pytest.mark.elsewhere(False)
def test_groups_stay_together():
    x, y, _ = draw(400)
    groups = np.repeat(np.arange(100), 4)
    estimator = MultivariateNormalRegressor(**SMALL).fit(x, y, groups=groups)
    found = [set(groups[rows]) for rows in estimator.split_.values()]
    assert all(found)
    assert len(set.union(*found)) == sum(map(len, found)) == 100


@pytest.mark.once
def test_few_large_groups_still_calibrate():
    x, y, _ = draw(400)
    groups = np.repeat(np.arange(8), 50)
    estimator = MultivariateNormalRegressor(**SMALL).fit(x, y, groups=groups)
    assert {name: len(rows) for name, rows in estimator.split_.items()} == {
        "train": 300,
        "validation": 50,
        "calibration": 50,
    }


@pytest.mark.elsewhere(False)
def test_split_and_validation_data_of_the_user():
    x, y, _ = draw(100)
    split = {"train": np.arange(50), "validation": np.arange(100) >= 75}
    estimator = MultivariateNormalRegressor(calibration=None, **SMALL).fit(x, y, split=split)
    np.testing.assert_array_equal(estimator.split_["validation"], np.arange(75, 100))
    same = MultivariateNormalRegressor(calibration=None, **SMALL)
    same.fit(x[:50], y[:50], validation_data=(x[75:], y[75:]))
    assert len(same.split_["train"]) == 50
    np.testing.assert_allclose(same.history_["val_loss"], estimator.history_["val_loss"], rtol=1e-5)


@pytest.mark.elsewhere(False)
def test_without_validation_all_epochs_count():
    x, y, _ = draw(60)
    estimator = MultivariateNormalRegressor(validation_fraction=0, **LINEAR).fit(x, y)
    assert len(estimator.history_["loss"]) == 25
    assert "val_loss" not in estimator.history_
    assert len(estimator.split_["train"]) == 60
    after = estimator.model_.evaluate(x.astype("float32"), y.astype("float32"), verbose=0)
    assert after < estimator.history_["loss"][10]  # of the last weights, averaged


@pytest.mark.once
def test_moments_of_a_table_in_parts(monkeypatch):
    monkeypatch.setattr("keras_mvn._training.data.PART", 7)
    x = np.random.default_rng(0).normal([1e6, 0.0, 3.0], [1.0, 2.0, 0.0], size=(50, 3))
    rows = np.arange(0, 50, 2)
    mean, variance, lower, upper, binary = moments(Table(x, x, None, rows))
    np.testing.assert_array_equal([lower, upper], [x[rows].min(axis=0), x[rows].max(axis=0)])
    np.testing.assert_allclose(mean, x[rows].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance[:2], x[rows].var(axis=0)[:2], rtol=1e-9)
    assert variance[2] == 1.0  # constant
    np.testing.assert_array_equal(binary, [False, False, True])


@pytest.mark.once
def test_batches_follow_from_seed_and_epoch_alone():
    x = np.arange(23.0)[:, None]
    table = Table(x, x, None, np.arange(3, 23))
    one, two = (Batches(table, 6, seed=5) for _ in range(2))
    one.begin_epoch(1)
    two.begin_epoch(4)
    two.begin_epoch(1)
    seen = [np.concatenate([b[i][0] for i in range(len(b))]) for b in (one, two)]
    np.testing.assert_array_equal(*seen)
    assert len(one) == 3
    assert len(np.unique(seen[0])) == 18
    assert seen[0].min() >= 3
    two.begin_epoch(2)
    assert (np.concatenate([two[i][0] for i in range(3)]) != seen[0]).any()
    whole = Batches(table, 6)
    np.testing.assert_array_equal(np.concatenate([whole[i][1] for i in range(4)]), x[3:])


@pytest.mark.elsewhere(False)
def test_a_table_larger_than_memory_is_not_copied(tmp_path):
    n, features = 150_000, 40
    x = np.memmap(tmp_path / "x", dtype="float32", mode="w+", shape=(n, features))
    for start in range(0, n, 10_000):
        x[start : start + 10_000] = np.random.default_rng(start).normal(size=(10_000, features))
    y = np.asarray(x[:, :1])
    settings = {"hidden": (4,), "epochs": 1, "batch_size": 4096, "random_state": 0}
    settings |= {"tails": "normal", "cv": None, "embedding": None, "mean": None}
    estimator = MultivariateNormalRegressor(calibration=None, **settings)
    estimator.fit(draw(50)[0], draw(50)[1], split={"train": range(50)})  # what imports allocate
    tracemalloc.start()
    estimator.fit(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Twice a part of 2¹⁶ rows in float64, more than x would be here; a copy would be 24 MB more.
    assert peak < 3.2 * 8 * features * 2**16
    assert np.isfinite(estimator.predict(x[:10])).all()


# --- calibration ---------------------------------------------------------------------------------


def held_out(estimator, x, y):
    rows = estimator.split_["calibration"]
    y_pred = estimator.model_.predict(x[rows].astype("float32"), verbose=0)
    return estimator.head_.distribution(y_pred), y[rows]


def robust_square(squared, count):
    """The s with mean min(q/s, q₉₉) = E min(Q, q₉₉), Q ~ χ²."""
    law = scipy.stats.chi2(count)
    bound = law.ppf(0.99)
    expected = law.expect(lambda q: np.minimum(q, bound))
    return scipy.optimize.brentq(
        lambda s: np.minimum(squared / s, bound).mean() - expected, 1e-6, 1e6
    )


@pytest.mark.elsewhere(False)
def test_temperature_is_fitted_on_the_calibration_rows(fitted):
    x, y, _ = draw(1000)
    normal, observed = held_out(fitted, x, y)
    expected = np.sqrt(robust_square(normal.mahalanobis(observed) ** 2, 2))
    assert fitted.calibration_.temperature == pytest.approx(expected, rel=1e-5)
    raw = fitted.head_.distribution(fitted.model_.predict(x.astype("float32"), verbose=0))
    seen = seen_by(fitted, x)
    np.testing.assert_allclose(
        fitted.predict(x, return_std=True)[1][seen], expected * raw.stddev[seen], rtol=1e-4
    )
    calibrated = fitted.calibration_.apply(fitted.model_)
    y_pred = calibrated.predict(x.astype("float32"), verbose=0)
    np.testing.assert_allclose(
        fitted.head_.distribution(y_pred).stddev, expected * raw.stddev, rtol=1e-4
    )


@pytest.mark.parametrize("calibration", ["per_target", "matrix", kmvn.calibration.MatrixScaling])
@pytest.mark.elsewhere(False)
def test_other_recalibrations(calibration):
    x, y, _ = draw(300, missing=0.2)
    estimator = MultivariateNormalRegressor(calibration=calibration, **SMALL).fit(x, y)
    names = {"per_target": "PerTarget", "matrix": "MatrixScaling"}
    expected = names.get(calibration, getattr(calibration, "__name__", None))
    assert type(estimator.calibration_).__name__ == expected
    assert np.isfinite(estimator.score(x, y))


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.elsewhere(False)
def test_coverage_is_that_of_the_calibration_rows(n_members, tmp_path):
    x, y, _ = draw(500, missing=0.2)
    estimator = MultivariateNormalRegressor(calibration="coverage", n_members=n_members, **SMALL)
    estimator.fit(x, y)
    rows = estimator.split_["calibration"]
    for found in (estimator, pickle.loads(pickle.dumps(estimator))):
        normal = found.predict_distribution(x[rows]).rescale(1 + 1e-5)
        seen = ~np.isnan(y[rows])
        limit = scipy.stats.chi2(seen.sum(axis=1)).ppf(0.9)
        inside = normal.mahalanobis(y[rows], missing="marginalize") ** 2 <= limit
        assert inside.sum() == np.ceil(0.9 * (len(rows) + 1))
    assert isinstance(estimator.calibration_, kmvn.calibration.Temperature)
    if n_members == 1:
        calibrated = estimator.calibration_.apply(estimator.model_)
        calibrated.save(tmp_path / "calibrated.keras")
        loaded = keras.models.load_model(tmp_path / "calibrated.keras")
        predicted = predict_distribution(members_of([loaded]), x[rows])
        np.testing.assert_allclose(
            predicted.stddev, estimator.predict(x[rows], return_std=True)[1], rtol=1e-4
        )


@pytest.mark.parametrize("calibration", ["temperature", "coverage"])
@pytest.mark.elsewhere(False)
def test_a_factor_is_found_where_a_target_is_never_observed_in_the_calibration_rows(calibration):
    x, y, _ = draw(120)
    y[80:, 1] = np.nan
    split = {
        "train": np.arange(60),
        "validation": np.arange(60, 80),
        "calibration": np.arange(80, 120),
    }
    estimator = MultivariateNormalRegressor(calibration=calibration, **SMALL)
    estimator.fit(x, y, split=split)
    raw = estimator.head_.distribution(predict(estimator.model_, x[80:]))
    squared = ((y[80:, 0] - raw.mean[:, 0]) / raw.stddev[:, 0]) ** 2
    expected = robust_square(squared, 1)
    if calibration == "coverage":  # the 37th of 40 distances reaches the 90 % quantile
        expected = np.sort(squared)[36] / scipy.stats.chi2(1).ppf(0.9)
    factor = estimator.calibration_.temperature
    assert factor == pytest.approx(np.sqrt(expected), rel=1e-4)
    seen = seen_by(estimator, x[80:])
    stddev = estimator.predict(x[80:], return_std=True)[1]
    np.testing.assert_allclose(stddev[seen], raw.stddev[seen] * factor)


@pytest.mark.elsewhere(False)
def test_factors_per_target_are_left_out_where_a_target_is_never_observed():
    """Before that the error came after the training, and took it with it."""
    x, y, _ = draw(120)
    y[80:, 1] = np.nan
    split = {"train": np.arange(60), "calibration": np.arange(80, 120)}
    estimator = MultivariateNormalRegressor(calibration="per_target", **SMALL)
    with pytest.warns(
        UserWarning, match=r"'per_target' was skipped: no calibration row.*\['target 1'\]"
    ):
        estimator.fit(x, y, split=split)
    assert estimator.calibration_ is None
    assert np.isfinite(estimator.score(x, y))


@pytest.mark.parametrize("takes_gaps", [False, True])
@pytest.mark.elsewhere(False)
def test_a_recalibration_of_ones_own_says_whether_it_takes_rows_with_gaps(takes_gaps):
    class Own(kmvn.calibration.Recalibration):
        @classmethod
        def fit(cls, normal, y, missing="raise"):
            Own.seen = (missing, np.isnan(y).any(), len(y))
            return cls()

        def _apply_to_normal(self, normal):
            return normal

        def _apply_to_model(self, model):
            return model

    assert Own.takes_gaps is False
    Own.takes_gaps = takes_gaps
    x, y, _ = draw(400, missing=0.2)
    estimator = MultivariateNormalRegressor(calibration=Own, **SMALL).fit(x, y)
    observed = ~np.isnan(y[estimator.split_["calibration"]])
    if takes_gaps:
        assert Own.seen == ("marginalize", True, len(observed))
    else:
        assert Own.seen == ("raise", False, observed.all(axis=1).sum())


@pytest.mark.elsewhere(False)
def test_conformal_regions_and_intervals_hold_what_they_promise():
    x, y, _ = draw(800)
    estimator = MultivariateNormalRegressor(calibration="conformal", **SMALL).fit(x, y)
    normal, observed = held_out(estimator, x, y)
    split = kmvn.calibration.SplitConformal.fit(normal, observed, level=0.8)
    region = estimator.predict_region(x, 0.8)
    np.testing.assert_allclose(region.squared_radius, split.squared_radius, rtol=1e-4)
    fresh, truth, _ = draw(4000, seed=9)
    # Three standard errors of the coverage over calibration sets of 120 rows.
    margin = 3 * np.sqrt(0.8 * 0.2 / 120)
    assert abs(estimator.predict_region(fresh, 0.8).contains(truth).mean() - 0.8) < margin
    lower, upper = estimator.predict_interval(fresh, 0.8)
    inside = (lower <= truth) & (truth <= upper)
    assert (abs(inside.mean(axis=0) - 0.8) < margin).all()
    lower, upper = estimator.predict_interval(fresh, 0.8, simultaneous="exact")
    together = ((lower <= truth) & (truth <= upper)).all(axis=1).mean()
    assert abs(together - 0.8) < margin
    assert together > inside.all(axis=1).mean()
    raw = estimator.head_.distribution(predict(estimator.model_, fresh))
    seen = seen_by(estimator, fresh)
    np.testing.assert_allclose(estimator.predict(fresh, return_std=True)[1][seen], raw.stddev[seen])


@pytest.mark.elsewhere(False)
def test_too_few_rows_to_calibrate_warn():
    x, y, _ = draw(60)
    with pytest.warns(UserWarning, match="calibration='conformal' was skipped: 0 calib"):
        estimator = MultivariateNormalRegressor(calibration="conformal", **SMALL).fit(x, y)
    assert estimator.calibration_ is None
    assert estimator.predict_region(x).squared_radius[0] == pytest.approx(
        scipy.stats.chi2(2).ppf(0.9)
    )


# --- several networks ----------------------------------------------------------------------------


@pytest.mark.elsewhere(False)
def test_an_ensemble_predicts_the_moments_of_its_mixture():
    x, y, _ = draw(100)
    estimator = MultivariateNormalRegressor(n_members=3, calibration=None, **SMALL).fit(x, y)
    assert len(estimator.ensemble_) == len(estimator.history_) == 3
    normals = [
        estimator.head_.distribution(member.predict(x.astype("float32"), verbose=0))
        for member in estimator.ensemble_.members
    ]
    means = np.stack([normal.mean for normal in normals])
    assert abs(means[0] - means[1]).max() > 1e-3
    mean, covariance = estimator.predict(x, return_cov=True)
    np.testing.assert_allclose(mean, means.mean(axis=0), rtol=1e-5)
    spread = means - means.mean(axis=0)
    expected = np.mean([normal.covariance for normal in normals], axis=0)
    expected = expected + np.einsum("mni,mnj->nij", spread, spread) / 3
    seen = seen_by(estimator, x)
    np.testing.assert_allclose(covariance[seen], expected[seen], rtol=1e-3)
    estimator.set_params(n_members=1).fit(x, y)
    assert not hasattr(estimator, "ensemble_")


@pytest.mark.once
def test_auto_chooses_on_the_validation_rows(capsys):
    x, y, _ = draw(200)
    estimator = MultivariateNormalRegressor("auto", verbose=1, **LINEAR)
    estimator.fit(x, y)
    scores = [line["validation_nll"] for line in estimator.selection_]
    names = [line["name"] for line in estimator.selection_]
    assert scores == sorted(scores)
    assert "diagonal" in names[1:]
    assert estimator.head_.covariance == estimator.selection_[0]["covariance"]
    rows = estimator.split_["validation"]
    assert -estimator.score(x[rows], y[rows]) == pytest.approx(scores[0], rel=1e-5)
    assert f"{names[0]}: validation NLL {scores[0]:.4f}" in capsys.readouterr().out


@pytest.mark.elsewhere(False)
def test_auto_keeps_to_its_time():
    x, y, _ = draw(100)
    estimator = MultivariateNormalRegressor("auto", time_budget=1e-3, calibration=None, **SMALL)
    estimator.fit(x, y)
    assert [line["name"] for line in estimator.selection_] == ["cholesky"]
    assert np.isfinite(estimator.score(x, y))


# --- copies, interruptions, crashes --------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"n_members": 2}, {"calibration": "conformal", "target_transform": "yeo-johnson"}],
)
@pytest.mark.elsewhere(False)
def test_pickled_and_copied_estimators_predict_the_same(settings):
    x, y, _ = draw(150)
    estimator = MultivariateNormalRegressor(**{**SMALL, **settings}).fit(x, y)
    for twin in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
        np.testing.assert_array_equal(twin.predict(x), estimator.predict(x))
        np.testing.assert_array_equal(twin.predict_interval(x), estimator.predict_interval(x))
        assert twin.history_ == estimator.history_


class Stop(BaseException):
    """A process that dies."""


class At(keras.callbacks.Callback):
    def __init__(self, epoch, error):
        super().__init__()
        self.epoch, self.error = epoch, error

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise self.error

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch


@pytest.mark.elsewhere(False)
def test_training_goes_on_after_a_crash_as_if_there_had_been_none(tmp_path):
    x, y, _ = draw(250)
    settings = {"hidden": (8,), "dropout": 0.3, "epochs": 12, "patience": 5, "batch_size": 64}
    settings |= {"tails": "normal", "cv": None, "embedding": None, "mean": None}

    def fit(**arguments):
        return MultivariateNormalRegressor(random_state=0, **settings).fit(x, y, **arguments)

    whole = fit()
    with pytest.raises(Stop):
        fit(backup_dir=tmp_path, callbacks=lambda: At(7, Stop()))
    resumed = fit(backup_dir=tmp_path)
    np.testing.assert_array_equal(resumed.predict(x), whole.predict(x))
    assert resumed.history_ == whole.history_
    again = fit(backup_dir=tmp_path, callbacks=lambda: At(0, Stop()))  # it is done: no training
    np.testing.assert_array_equal(again.predict(x), whole.predict(x))
    with pytest.raises(ValueError, match="other data, settings"):
        MultivariateNormalRegressor(random_state=1, **settings).fit(x, y, backup_dir=tmp_path)
    with pytest.raises(ValueError, match="other data, settings"):
        MultivariateNormalRegressor(random_state=0, **settings).fit(x, 2 * y, backup_dir=tmp_path)
    other = tmp_path / "other"
    fit(backup_dir=other, validation_data=(x[:20], y[:20]))
    with pytest.raises(ValueError, match="other data, settings"):
        fit(backup_dir=other, validation_data=(x[:20], y[20:40]))


PROCESS = """
import sys, time
import keras, numpy as np
from keras_mvn.estimator import MultivariateNormalRegressor
rng = np.random.default_rng(0)
x = rng.normal(size=(200, 3))
y = x[:, :2] + rng.normal(size=(200, 2))
class Slow(keras.callbacks.Callback):
    made = []
    def on_train_begin(self, logs=None):
        Slow.made.append(self)
    def on_epoch_end(self, epoch, logs=None):
        time.sleep(float(sys.argv[2]) * (self is not Slow.made[0]))
settings = {"hidden": (8,), "epochs": 8, "random_state": 0, "n_members": 2}
settings |= {"tails": "normal", "cv": None, "embedding": None, "mean": None}
estimator = MultivariateNormalRegressor(**settings)
np.save(sys.argv[3], estimator.fit(x, y, backup_dir=sys.argv[1], callbacks=Slow).predict(x))
"""


@pytest.mark.slow
@pytest.mark.elsewhere(False)
def test_a_killed_process_is_followed_by_one_that_goes_on(tmp_path, monkeypatch):
    def arguments(backup, pause, result):
        return [str(tmp_path / backup), str(pause), str(tmp_path / result)]

    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, *arguments("backup", 0.5, "none.npy")]
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "backup" / "member_1" / "training.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "none.npy").exists()
    for backup, result in (("backup", "resumed.npy"), ("other", "whole.npy")):
        monkeypatch.setattr(sys, "argv", ["-c", *arguments(backup, 0.0, result)])
        exec(PROCESS, {})  # this process is another one
    np.testing.assert_array_equal(*(np.load(tmp_path / f"{n}.npy") for n in ("resumed", "whole")))


@pytest.mark.elsewhere(False)
def test_a_random_state_of_none_is_kept_for_the_next_process(tmp_path):
    x, y, _ = draw(100)
    settings = {
        "hidden": (4,),
        "epochs": 3,
        "tails": "normal",
        "cv": None,
        "embedding": None,
        "mean": None,
    }
    estimator = MultivariateNormalRegressor(calibration=None, **settings)
    with pytest.raises(Stop):
        clone(estimator).fit(x, y, backup_dir=tmp_path, callbacks=lambda: At(2, Stop()))
    one, two = (clone(estimator).fit(x, y, backup_dir=tmp_path).predict(x) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.elsewhere(False)
def test_an_interrupted_fit_is_usable():
    x, y, _ = draw(250)
    settings = {"hidden": (8,), "batch_size": 32, "random_state": 0, "dropout": 0.1}
    settings |= {"tails": "normal", "cv": None, "embedding": None, "mean": None}
    estimator = MultivariateNormalRegressor(epochs=20, n_members=2, **settings)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(x, y, callbacks=lambda: At(4, KeyboardInterrupt()))
    assert estimator.interrupted_
    assert len(estimator.ensemble_) == 1
    four = MultivariateNormalRegressor(epochs=4, **settings).fit(x, y)
    np.testing.assert_array_equal(estimator.predict(x), four.predict(x))
    nothing = MultivariateNormalRegressor(epochs=20, **settings)
    with pytest.raises(KeyboardInterrupt):
        nothing.fit(x, y, callbacks=lambda: At(0, KeyboardInterrupt()))
    assert not hasattr(nothing, "model_")


@pytest.fixture
def python_handles_sigint():
    """It is ignored where a shell runs tests with &."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class InterruptedStep(keras.callbacks.Callback):
    """^C when JAX has taken the model's buffers, and before it has given others back."""

    def __init__(self, epoch, times=1):
        super().__init__()
        self.epoch, self.left = epoch, times

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_begin(self, logs=None):
        step = self.model.train_function

        def interrupted(*arguments):
            result = step(*arguments)
            while self.now == self.epoch and self.left:
                self.left -= 1
                signal.raise_signal(signal.SIGINT)
            return result

        self.model.train_function = interrupted


@pytest.mark.parametrize("times", [1, 2])
def test_control_c_in_the_middle_of_a_step(times, python_handles_sigint):
    x, y, _ = draw(250)
    settings = {"hidden": (8,), "batch_size": 32, "random_state": 0, "dropout": 0.1}
    settings |= {"tails": "normal", "cv": None, "embedding": None, "mean": None}
    estimator = MultivariateNormalRegressor(epochs=20, n_members=2, **settings)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(x, y, callbacks=lambda: InterruptedStep(4, times))
    assert estimator.interrupted_
    assert len(estimator.ensemble_) == 1
    assert len(estimator.history_[0]["loss"]) == (5 if times == 1 else 4)
    best = min(estimator.history_[0]["val_loss"])
    rows = estimator.split_["validation"]
    found = estimator.ensemble_.members[0].evaluate(
        x[rows].astype("float32"), y[rows].astype("float32"), verbose=0
    )
    assert found == pytest.approx(best, rel=1e-4)
    twin = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(twin.predict(x), estimator.predict(x))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.elsewhere(False)
def test_control_c_in_a_later_network_keeps_those_before(python_handles_sigint):
    x, y, _ = draw(150)
    made = []

    def callbacks():
        made.append(InterruptedStep(0 if len(made) == 1 else 99))
        return made[-1]

    for settings, kept in (({"n_members": 2}, "ensemble_"), ({"covariance": "auto"}, "selection_")):
        made.clear()
        estimator = MultivariateNormalRegressor(**settings, **{**SMALL, "calibration": None})
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(x, y, callbacks=callbacks)
        assert len(made) == 2
        assert len(getattr(estimator, kept)) == 1
        assert estimator.interrupted_


@pytest.mark.elsewhere(False)
def test_control_c_while_calibrating_loses_nothing(python_handles_sigint):
    class Own(kmvn.calibration.Temperature):
        @classmethod
        def fit(cls, normal, y, missing="raise"):
            signal.raise_signal(signal.SIGINT)
            return super().fit(normal, y, missing)

    x, y, _ = draw(200)
    estimator = MultivariateNormalRegressor(calibration=Own, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(x, y)
    assert estimator.interrupted_
    assert estimator.calibration_.temperature > 0
    assert len(estimator.history_["loss"]) == 3


@pytest.mark.once
def test_a_handler_of_ones_own_is_called(python_handles_sigint):
    x, y, _ = draw(100)
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    estimator = MultivariateNormalRegressor(calibration=None, **SMALL)
    estimator.fit(x, y, callbacks=lambda: InterruptedStep(1))
    assert heard == [1]
    assert not estimator.interrupted_
    assert len(estimator.history_["loss"]) == 3


def test_fits_in_threads_leave_signals_alone(python_handles_sigint):
    x, y, _ = draw(60)
    with ThreadPoolExecutor(1) as pool:
        estimator = MultivariateNormalRegressor(calibration=None, **SMALL)
        assert not pool.submit(estimator.fit, x, y).result().interrupted_


# --- transforms of targets -----------------------------------------------------------------------

Y = np.exp(np.random.default_rng(0).normal([1.0, 3.0], [0.4, 1.2], size=(300, 2)))
TRANSFORMS = [
    "log",
    "box-cox",
    "yeo-johnson",
    PowerTransformer(),
    FunctionTransformer(np.negative, np.negative),
]


def made(identifier, y=Y):
    return fit_target_transform(identifier, y, ["a", "b"])


@pytest.mark.parametrize("identifier", TRANSFORMS, ids=str)
@pytest.mark.once
def test_transforms_invert_and_have_their_derivative(identifier):
    transform = made(identifier)
    gaps = Y.copy()
    gaps[3, 1] = np.nan
    np.testing.assert_allclose(transform.inverse(transform.forward(Y)), Y, rtol=1e-9)
    h = 1e-5 * Y
    slope = (transform.forward(Y + h) - transform.forward(Y - h)) / (2 * h)
    np.testing.assert_allclose(transform.log_derivative(Y), np.log(np.abs(slope)), atol=1e-6)
    for function in (transform.forward, transform.log_derivative):
        assert np.isnan(function(gaps)).sum() == 1


@pytest.mark.once
def test_a_range_with_an_end_goes_back_to_where_the_targets_end():
    roots = made(FunctionTransformer(np.sqrt, np.square))
    t = np.array([[-0.5, -1e-3], [0.0, 2.0]])
    np.testing.assert_allclose(roots.inverse(t), [[0, 0], [0, 4]], atol=1e-6)
    np.testing.assert_allclose(roots.of(np.array([1])).inverse(t[:, 1:]), [[0], [4]], atol=1e-6)
    y = np.sqrt(np.random.default_rng(0).normal(8, 1, (300, 2)))
    squares = made(PowerTransformer("box-cox", standardize=False), y)
    assert (squares.transformer.lambdas_ > 0).all()
    beyond = -1.5 / squares.transformer.lambdas_
    np.testing.assert_allclose(squares.inverse(np.array([beyond])), 0.0, atol=1e-3)
    inverses = made(FunctionTransformer(lambda y: -1 / y, lambda t: -1 / t))
    y = inverses.inverse(np.array([[0.3, 7.0], [-0.5, -0.5]]))
    np.testing.assert_allclose(y[1], 2.0)
    assert (y[0] > 100 * Y.max(axis=0)).all()
    near, far = (
        TransformedDistribution(
            kmvn.MultivariateNormal([[-0.5, -0.5]], covariance=[stddev**2 * np.eye(2)]), inverses
        )
        for stddev in (0.02, 0.2)
    )
    np.testing.assert_allclose(near.mean, 2.0, rtol=1e-2)
    with pytest.warns(UserWarning, match="never reaches .* and so has no mean.*'yeo-johnson'"):
        assert np.isfinite(far.mean).all()
    with pytest.warns(UserWarning, match="never reaches"):
        assert np.isfinite(far.marginal([1]).variance).all()
    assert np.isfinite(far.interval(0.999)).all()
    log_normal = TransformedDistribution(
        kmvn.MultivariateNormal([0.0, 1.0], covariance=np.eye(2)), made("log")
    )
    below = log_normal.marginal_cdf([[-1.0, 0.0], [2.0, 3.0]])
    expected = scipy.stats.lognorm(1.0, scale=np.exp([0.0, 1.0])).cdf([[-1, 0], [2, 3]])
    np.testing.assert_allclose(below, expected, rtol=1e-12)
    logs = made(FunctionTransformer(np.log, np.exp))
    np.testing.assert_allclose(logs.inverse(np.full((1, 2), -80.0)), np.exp(-80.0))


@pytest.mark.once
def test_powers_are_those_of_scipy():
    box_cox, yeo_johnson = made("box-cox", Y**-0.1), made("yeo-johnson", Y - 5.0)
    y = (Y**-0.1) / np.exp(np.log(Y**-0.1).mean(axis=0))
    for j in range(2):
        expected, power = scipy.stats.boxcox(y[:, j])
        assert box_cox.power[j] == pytest.approx(max(power, 0.0), abs=1e-3)
        if power > 0:
            np.testing.assert_allclose(box_cox.forward(Y**-0.1)[:, j], expected, atol=1e-2)
    scaled = (Y - 5.0) / (Y - 5.0).std(axis=0)
    for j in range(2):
        expected = scipy.stats.yeojohnson(scaled[:, j], yeo_johnson.power[j])
        np.testing.assert_allclose(yeo_johnson.forward(Y - 5.0)[:, j], expected, rtol=1e-9)


@pytest.mark.parametrize("identifier", TRANSFORMS, ids=str)
@pytest.mark.once
def test_transformed_moments_agree_with_draws(identifier):
    transform = made(identifier)
    t = transform.forward(np.quantile(Y, [0.3, 0.6], axis=0))
    sd = 0.3 * transform.forward(Y).std(axis=0)
    covariance = sd[:, None] * np.array([[1.0, -0.7], [-0.7, 1.0]]) * sd
    normal = kmvn.MultivariateNormal(t, covariance=np.stack([covariance] * 2))
    distribution = TransformedDistribution(normal, transform)
    draws = distribution.sample(100_000, seed=0)
    size = distribution.stddev
    np.testing.assert_allclose(draws.mean(axis=0), distribution.mean, atol=5 / 316 * size.max())
    for row in range(2):
        unit = size[row, :, None] * size[row]
        np.testing.assert_allclose(
            np.cov(draws[:, row].T) / unit, distribution.covariance[row] / unit, atol=0.05
        )
    np.testing.assert_allclose(
        np.diagonal(distribution.covariance, axis1=1, axis2=2), distribution.variance, rtol=1e-6
    )
    quantiles = np.quantile(draws, [0.1, 0.8], axis=0)
    np.testing.assert_allclose(
        distribution.quantile([0.1, 0.8]) / size, quantiles / size, atol=0.02
    )
    lower, upper = distribution.interval(0.9)
    assert abs(((draws >= lower) & (draws <= upper)).mean() - 0.9) < 0.005
    region = distribution.ellipsoid(0.7)
    assert abs(region.contains(draws[:2000, 0][:, None]).mean(axis=0)[0] - 0.7) < 0.05
    np.testing.assert_allclose(distribution.marginal_cdf(lower), 0.05, atol=1e-6)


@pytest.mark.parametrize("identifier", TRANSFORMS, ids=str)
@pytest.mark.once
def test_a_transformed_normal_is_conditioned_and_asked_in_units_of_y(identifier):
    transform = made(identifier)
    t = transform.forward(np.quantile(Y, [0.3, 0.6], axis=0))
    sd = 0.3 * transform.forward(Y).std(axis=0)
    covariance = sd[:, None] * np.array([[1.0, -0.7], [-0.7, 1.0]]) * sd
    normal = kmvn.MultivariateNormal(
        t, covariance=np.stack([covariance] * 2), target_names=["a", "b"]
    )
    distribution = TransformedDistribution(normal, transform)
    draws = distribution.sample(50_000, seed=1)
    y = draws[0]
    b, a = distribution.condition({"a": y[:, 0]}), distribution.marginal("a")
    assert (a.target_names, b.target_names) == (("a",), ("b",))
    # p(a, b) = p(a) p(b | a)
    np.testing.assert_allclose(
        a.log_prob(y[:, :1]) + b.log_prob(y[:, 1:]), distribution.log_prob(y), rtol=1e-6
    )
    near = np.abs(draws[:, 0, 0] - y[0, 0]) < 0.05 * distribution.stddev[0, 0]
    assert abs(b.mean[0, 0] - draws[near, 0, 1].mean()) < 0.1 * distribution.stddev[0, 1]
    lower, upper = distribution.quantile(0.3), distribution.quantile(0.9)
    inside = ((draws >= lower) & (draws <= upper)).all(axis=-1).mean(axis=0)
    np.testing.assert_allclose(distribution.probability(lower, upper), inside, atol=0.012)
    np.testing.assert_allclose(distribution.probability(upper={"b": upper[:, 1]}), 0.9, atol=1e-5)
    np.testing.assert_allclose(distribution.probability(), 1.0)
    np.testing.assert_allclose(distribution.correlation[0], np.corrcoef(draws[:, 0].T), atol=0.03)


@pytest.mark.once
def test_limits_that_no_logarithm_has():
    distribution = TransformedDistribution(
        kmvn.MultivariateNormal([0.0, 1.0], covariance=np.eye(2)), made("log")
    )
    assert distribution.probability(lower=-5.0) == 1.0
    assert distribution.probability(upper=0.0) == 0.0
    assert distribution.probability(lower=0.0, upper=[1.0, np.inf]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="takes positive targets"):
        distribution.condition({0: -1.0})


@pytest.mark.once
def test_a_diagnosis_of_transformed_targets_says_what_to_pass():
    distribution = TransformedDistribution(
        kmvn.MultivariateNormal(np.zeros((5, 2)), covariance=np.stack([np.eye(2)] * 5)), made("log")
    )
    with pytest.raises(TypeError, match=r"pass `\.base`.*`\.transform\.forward\(y\)`"):
        kmvn.calibration.diagnose(distribution, np.ones((5, 2)))


@pytest.mark.once
def test_log_is_exactly_the_log_normal():
    normal = kmvn.MultivariateNormal([[0.3, -1.0]], covariance=[[[0.5, 0.2], [0.2, 1.5]]])
    distribution = TransformedDistribution(normal, made("log"))
    for j, sd in enumerate(np.sqrt([0.5, 1.5])):
        scipy_normal = scipy.stats.lognorm(sd, scale=np.exp([0.3, -1.0][j]))
        assert distribution.mean[0, j] == pytest.approx(scipy_normal.mean())
        assert distribution.stddev[0, j] == pytest.approx(scipy_normal.std())
    # Mehler's series, the general way, against the closed form.
    mean, covariance = _transforms.TargetTransform._moments(made("log"), normal, True)
    np.testing.assert_allclose(mean, distribution.mean, rtol=1e-10)
    np.testing.assert_allclose(covariance, distribution.covariance, rtol=1e-8)


@pytest.mark.parametrize("identifier", TRANSFORMS, ids=str)
@pytest.mark.once
def test_densities_integrate_to_one(identifier):
    transform = made(identifier)
    t = transform.forward(Y)
    normal = kmvn.MultivariateNormal(t.mean(axis=0), covariance=np.diag((0.2 * t.std(axis=0)) ** 2))
    distribution = TransformedDistribution(normal, transform)
    grid = np.stack([np.full(4001, np.nan)] * 2, axis=1)
    low, high = distribution.quantile(1e-9)[0], distribution.quantile(1 - 1e-9)[0]
    grid[:, 0] = np.linspace(low, high, 4001)
    density = np.exp(distribution.log_prob(grid, missing="marginalize"))
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.elsewhere(False)
def test_a_regressor_of_logarithms():
    x, t, _ = draw(400)
    t = t / 50.0
    y = np.exp(t)
    settings = {**SMALL, "epochs": 10, "batch_size": 140}
    plain = MultivariateNormalRegressor(**settings).fit(x, t)
    logs = MultivariateNormalRegressor(target_transform="log", **settings).fit(x, y)
    np.testing.assert_allclose(logs.predict_distribution(x).base.mean, plain.predict(x), rtol=1e-4)
    seen = seen_by(plain, x)
    x, t, y = x[seen], t[seen], y[seen]
    jacobian = -np.log(y).sum(axis=1).mean()
    assert logs.score(x, y) == pytest.approx(plain.score(x, t) + jacobian, rel=1e-4)
    mean, stddev = plain.predict(x, return_std=True)
    np.testing.assert_allclose(logs.predict(x), np.exp(mean + stddev**2 / 2), rtol=1e-4)
    np.testing.assert_allclose(
        logs.predict_interval(x), np.exp(plain.predict_interval(x)), rtol=1e-4
    )
    assert logs.predict_region(x).contains(y).mean() == plain.predict_region(x).contains(t).mean()


@pytest.mark.parametrize(
    ("identifier", "y", "message"),
    [
        ("log", -Y, "takes positive targets"),
        ("box-cox", Y - 4.0, "takes positive targets"),
        ("square", Y, "is not known"),
        (FunctionTransformer(np.square, np.sqrt), Y - 4.0, "strictly monotone"),
        (Normalizer(), Y, "is not known"),
        (FunctionTransformer(np.cumsum, np.diff, kw_args={"axis": 1}), Y, "each target alone"),
        (FunctionTransformer(np.log, np.sqrt), Y, "does not give"),
    ],
)
@pytest.mark.once
def test_transforms_that_cannot_be(identifier, y, message):
    with pytest.raises(ValueError, match=message):
        made(identifier, y)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"covariance": "full"}, "covariance='full' is not a covariance structure.*'auto'"),
        ({"covariance": "auto", "constant": "shape"}, "constant='shape' must be None"),
        ({"covariance": "auto", "validation_fraction": 0}, "there are none"),
        ({"loss": "mse"}, "loss='mse' is not known.*balanced"),
        ({"calibration": "platt"}, "calibration='platt' is not known"),
        ({"missing": "drop"}, "missing='drop'"),
        ({"hidden": 64}, "hidden=64 must be a sequence"),
        ({"hidden": (0,)}, "hidden=0"),
        ({"tails": "heavy"}, "tails='heavy' is not known"),
        ({"tails": "t", "loss": "crps"}, "tails='t' trains by the likelihood"),
        (
            {"tails": "normal", "cv": None, "embedding": None, "mean": None, "loss": "student_t"},
            "contradict each other",
        ),
        ({"activation": "gelo"}, "activation='gelo'"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"builder": 3}, "builder=3"),
        ({"learning_rate": 0}, "learning_rate=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": "big"}, "batch_size='big'"),
        ({"n_members": 0}, "n_members=0"),
        ({"validation_fraction": 0.6, "calibration_fraction": 0.5}, "leave no rows"),
        ({"time_budget": -1}, "time_budget=-1"),
        ({"target_transform": "log"}, "takes positive targets"),
    ],
)
@pytest.mark.elsewhere(False)
def test_wrong_parameters(settings, message):
    x, y, _ = draw(30)
    with pytest.raises(ValueError, match=message):
        MultivariateNormalRegressor(**settings).fit(x, y - 50.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:3], y[:3], {}), "minimum of 4"),
        (lambda x, y: (x, np.full_like(y, np.nan), {}), "0 rows with a value"),
        (lambda x, y: (x, y * [1.0, np.nan], {}), r"fewer than 2 values .*target 1"),
        (lambda x, y: (x, y * np.inf, {}), "Input y contains infinity"),
        (lambda x, y: (x * np.nan, y, {}), "Input X contains NaN"),
        (lambda x, y: (x * 1e40, y, {}), "beyond float32"),
        (lambda x, y: (x[1:], y, {}), "inconsistent numbers"),
        (lambda x, y: (x, y, {"sample_weight": -np.ones(30)}), "must not be negative"),
        (lambda x, y: (x, y, {"sample_weight": np.full(30, np.nan)}), "NaN"),
        (lambda x, y: (x, y, {"groups": np.zeros(7)}), "groups has shape"),
        (lambda x, y: (x, y, {"groups": np.zeros(30)}), "rows are left to train on"),
        (lambda x, y: (x, y, {"split": {"test": [1]}}), "it must have 'train'"),
        (lambda x, y: (x, y, {"split": {"train": range(40)}}), "outside 0 … 29"),
        (
            lambda x, y: (x, y, {"split": {"train": range(9), "validation": [8]}}),
            "more than once",
        ),
        (lambda x, y: (x, y, {"validation_data": (x, y[:, :1])}), "has 1 targets; fit saw 2"),
        (lambda x, y: (x, y, {"validation_data": (x, np.nan * y)}), "no row in which a target"),
    ],
)
@pytest.mark.elsewhere(False)
def test_wrong_data(change, message):
    x, y, arguments = change(*draw(30)[:2])
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        MultivariateNormalRegressor(calibration=None, **SMALL).fit(x, y, **arguments)


@pytest.mark.once
def test_nan_is_refused_where_it_is_not_expected():
    x, y, _ = draw(30, missing=0.2)
    with pytest.raises(ValueError, match="missing='marginalize'"):
        MultivariateNormalRegressor(missing="raise").fit(x, y)


@pytest.mark.once
def test_other_data_for_score(fitted):
    x, y, _ = draw(30)
    with pytest.raises(ValueError, match="y has 1 targets; fit saw 2"):
        fitted.score(x, y[:, 0])


@pytest.mark.once
def test_without_scikit_learn_importing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    for name in [name for name in sys.modules if name.startswith("keras_mvn.estimator")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r'pip install "keras-mvn\[analysis\]"'):
        __import__("keras_mvn.estimator")


@pytest.mark.elsewhere(False)
def test_the_core_of_training_knows_nothing_of_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    x, y, _ = draw(40)
    table = Table(x, y, None, np.arange(40))
    part = Part(table, None, None)
    trained = train(Recipe(Cholesky(), "balanced", epochs=2), part, moments(table), seed=0)
    assert trained.epochs == 2
    assert not trained.interrupted
