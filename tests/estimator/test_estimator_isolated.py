"""The estimator and single values that are far from all others."""

import warnings

import numpy as np
import pytest

from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.estimator._rows import OutlyingValuesWarning
from keras_mvn.scores import log_score

PARTS = {
    "train": np.arange(200),
    "validation": np.arange(200, 250),
    "calibration": np.arange(250, 300),
}
QUICK = {
    "tails": "normal",
    "hidden": (8,),
    "epochs": 30,
    "random_state": 0,
    "embedding": None,
    "mean": None,
}


def table(rng, rows=300):
    x = rng.normal(size=(rows, 2))
    z = rng.normal(size=(rows, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    return x, x + 0.5 * z


def fitted(x, y, **options):
    return MultivariateNormalRegressor("cholesky", **{**QUICK, **options}).fit(x, y, split=PARTS)


@pytest.fixture(scope="module")
def clean():
    rng = np.random.default_rng(0)
    x, y = table(rng)
    x_test, y_test = table(rng, 1000)
    return x, y, x_test, y_test, nll(fitted(x, y), x_test, y_test)


def nll(model, x, y):
    return log_score(model.predict_distribution(x), y).mean() / y.shape[1]


@pytest.mark.parametrize(
    ("row", "size"),
    [
        (5, 1e3),
        (5, 1e12),
        pytest.param(205, 1e3, marks=pytest.mark.full),
        (205, 1e12),
        pytest.param(255, 1e3, marks=pytest.mark.full),
        (255, 1e12),
    ],
)
@pytest.mark.parametrize("where", ["x", "y"])
@pytest.mark.elsewhere(size=[1e12], row=[5], where=["x"])  # y: as any gap
@pytest.mark.filterwarnings("ignore:These:UserWarning")
def test_one_row_costs_the_others_next_to_nothing(clean, where, row, size):
    x, y, x_test, y_test, before = clean
    x, y = x.copy(), y.copy()
    (x if where == "x" else y)[row, 1] = size
    assert nll(fitted(x, y), x_test, y_test) - before < 0.05


@pytest.mark.once
def test_they_are_named_with_what_was_done(clean):
    x, y, *_ = clean
    x, y = x.copy(), y.copy()
    x[7, 1], y[210, 0] = 1e6, -1e9
    with pytest.warns(OutlyingValuesWarning) as said:
        fitted(x, y)
    texts = [str(one.message) for one in said if one.category is OutlyingValuesWarning]
    assert len(texts) == 2
    assert any("target 0: -1e+09 in row 210" in text and "missing" in text for text in texts)
    assert any("x1: 1e+06 in row 7" in text and "limited" in text for text in texts)
    assert all("isolated='keep'" in text for text in texts)


@pytest.mark.elsewhere(False)
def test_keep_leaves_them_as_they_are(clean):
    x, y, x_test, y_test, before = clean
    x = x.copy()
    x[7, 1] = 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kept = fitted(x, y, isolated="keep")
    limit = kept.model_.layers[1]
    assert limit.upper[1] == 1e6
    assert nll(kept, x_test, y_test) > before + 0.1
    with pytest.raises(ValueError, match="isolated='drop'"):
        fitted(x, y, isolated="drop")


@pytest.mark.elsewhere(False)
@pytest.mark.filterwarnings("ignore:These:UserWarning")
def test_a_far_input_at_prediction_stays_near_what_was_seen(clean):
    x, y, *_ = clean
    model = fitted(x, y)
    mean = model.predict(np.array([[0.0, 1e12], [0.0, x[:, 1].max()]]))
    assert np.abs(mean[0] - mean[1]).max() < 3.0


@pytest.mark.once
def test_targets_of_two_values_are_told(rng):
    """Of yes or no, densities say nothing: the message says what is reported instead."""
    x = rng.normal(size=(60, 2))
    y = np.stack([x[:, 0], x[:, 1] > 0.0], axis=1)
    y[3] = np.nan
    y[4, 1] = np.nan
    quick = {
        "epochs": 1,
        "tails": "normal",
        "embedding": None,
        "mean": None,
        "cv": None,
        "calibration": None,
    }
    model = MultivariateNormalRegressor("diagonal", hidden=(4,), random_state=0, **quick)
    with pytest.warns(UserWarning, match=r"two values: target 1 \(0 or 1\).*probability of each"):
        model.fit(x, y)
    y[:5, 1] = 0.5
    model.fit(x, y)
