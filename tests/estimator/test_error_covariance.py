"""The covariance of another model's errors, by itself and inside MAPIE."""

import numpy as np
import pytest
from mapie.experimental import MultivariateResidualNormalisedScore
from sklearn.linear_model import LinearRegression

from keras_mvn.estimator import ErrorCovariance, MultivariateNormalRegressor

pytestmark = pytest.mark.once

ROOT = np.array([[1.0, 0.0], [0.8, 0.6]])


def draw(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    scale = np.exp(0.8 * x[:, :1])
    return x, x + scale * (rng.normal(size=(n, 2)) @ ROOT.T), scale


@pytest.fixture(scope="module")
def model():
    return LinearRegression().fit(*draw(500, 1)[:2])


@pytest.fixture(scope="module")
def estimator():
    return MultivariateNormalRegressor(
        hidden=(16,), epochs=40, random_state=0, cv=None, tails="normal", embedding=None, mean=None
    )


def test_mapie_gives_ellipsoids_whose_size_depends_on_x(model, estimator):
    score = MultivariateResidualNormalisedScore(covariance_estimator=ErrorCovariance(estimator))
    x, y, _ = draw(600, 2)
    score.fit(x, y, model.predict(x))
    x, y, _ = draw(500, 3)
    calibration = score.get_signed_conformity_scores(y, model.predict(x), X=x)
    radius = np.quantile(calibration, 0.9 * 501 / 500)
    x, y, scale = draw(2000, 4)
    found = score.get_signed_conformity_scores(y, model.predict(x), X=x) <= radius
    assert found.mean() == pytest.approx(0.9, abs=0.03)
    quiet, loud = scale[:, 0] < 0.5, scale[:, 0] > 2.0
    assert found[quiet].mean() == pytest.approx(0.9, abs=0.06)  # a constant Σ: 1.00
    assert found[loud].mean() == pytest.approx(0.9, abs=0.06)  # a constant Σ: 0.63


def test_errors_have_mean_0_and_y_its_own(model, estimator):
    x, y, scale = draw(600, 2)
    of_errors = ErrorCovariance(estimator).fit(x, y, y_pred=model.predict(x))
    np.testing.assert_array_equal(of_errors.predict(x), 0.0)
    mean, covariance = of_errors.get_distribution(x)
    np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_array_equal(of_errors.get_covariance_matrix(x), covariance)
    ratio = covariance[:, 0, 0] / scale[:, 0] ** 2
    assert 0.7 < np.median(ratio) < 1.4
    of_y = ErrorCovariance(estimator).fit(x, y)
    assert np.corrcoef(of_y.predict(x)[:, 0], x[:, 0])[0, 1] > 0.9
    assert not hasattr(estimator, "model_")  # a copy was fitted
