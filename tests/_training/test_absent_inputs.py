"""Rows that lack inputs: values of similar training rows stand in for them."""

import pickle

import numpy as np
import pytest
import scipy.stats
from sklearn.base import clone

from keras_mvn import MultivariateNormal, MultivariateStudentT
from keras_mvn._training.absent_inputs import DRAWS, Donors
from keras_mvn._training.member import members_of, predict_distribution
from keras_mvn.estimator import MultivariateNormalRegressor
from keras_mvn.layers import SoftClip

pytestmark = pytest.mark.once

ROOT = np.linalg.cholesky([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])


def inputs(rng, n):
    return rng.normal(size=(n, 3)) @ ROOT.T


def mask(n, *columns):
    absent = np.zeros((n, 3), bool)
    absent[:, list(columns)] = True
    return absent


def test_values_follow_the_observed_inputs(rng):
    """x₀ given x₁ is normal, with mean 0.9 x₁ and variance 0.19."""
    x = inputs(rng, 400)
    found = Donors(inputs(rng, 1000)).draws(x, mask(400, 0))
    assert found.shape == (DRAWS, 400, 3)
    np.testing.assert_array_equal(found[:, :, 1:], np.broadcast_to(x[:, 1:], (DRAWS, 400, 2)))
    residual = found[:, :, 0] - 0.9 * x[:, 1]
    assert abs(residual.mean()) < 0.05
    assert residual.std() == pytest.approx(np.sqrt(0.19), rel=0.15)


def test_unrelated_inputs_keep_their_own_spread_and_correlations(rng):
    donors = Donors(inputs(rng, 1000))
    found = donors.draws(inputs(rng, 300), mask(300, 2))[:, :, 2]
    assert found.std() == pytest.approx(1.0, rel=0.15)
    both = donors.draws(inputs(rng, 300), mask(300, 0, 1))[:, :, :2].reshape(-1, 2)
    assert np.corrcoef(both.T)[0, 1] == pytest.approx(0.9, abs=0.05)
    assert set(map(tuple, both)) <= set(map(tuple, donors.rows[:, :2]))


def test_absent_values_and_constant_columns_do_not_matter(rng):
    rows = inputs(rng, 50)
    rows[:, 2] = 7.0
    x = inputs(rng, 5)
    one, other = (Donors(rows).draws(np.where(mask(5, 0), v, x), mask(5, 0)) for v in (0.0, np.nan))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tails", ["normal", "t"])
def test_predictions_have_the_moments_of_what_is_known(tails, rng):
    """Of y = x₀ + x₂ + e, given x₁ and x₂ alone: variance 0.19 + that of e."""

    def predict(x):
        mean = (x[:, 0] + x[:, 2])[:, None]
        tril = np.full((len(x), 1, 1), 0.3)
        if tails == "normal":
            return MultivariateNormal(mean, scale_tril=tril)
        return MultivariateStudentT(mean, 6.0, scale_tril=tril * np.sqrt(4.0 / 6.0))

    x = inputs(rng, 2000)
    absent = mask(2000, 0)
    absent[::2] = False
    found = Donors(inputs(rng, 1000)).predict(predict, x, absent)
    assert type(found) is type(predict(x))
    np.testing.assert_allclose(found[::2].mean, predict(x).mean[::2])
    np.testing.assert_allclose(found[::2].covariance, 0.09)
    assert found[1::2].variance.mean() == pytest.approx(0.19 + 0.09, rel=0.1)
    if tails == "normal":
        y = x[:, :1] + x[:, 2:] + 0.3 * rng.normal(size=(2000, 1))
        p = scipy.stats.norm.cdf(y - found.mean, scale=found.stddev)[1::2, 0]
        assert np.mean((p > 0.05) & (p < 0.95)) == pytest.approx(0.9, abs=0.03)
    all_known = Donors(inputs(rng, 100)).predict(predict, x, mask(2000))
    np.testing.assert_array_equal(all_known.mean, predict(x).mean)


class TestBeyond:
    """Of y = x₀ + x₂ + e, where the network has limited x₂ to what it saw."""

    @pytest.fixture
    def rows(self, rng):
        return inputs(rng, 1000)

    @pytest.fixture
    def limits(self, rows):
        return SoftClip(rows.min(axis=0), rows.max(axis=0), rows.std(axis=0))

    @staticmethod
    def predict(x):
        mean = (x[:, 0] + np.clip(x[:, 2], -4.0, 4.0))[:, None]
        return MultivariateStudentT(mean, 6.0, scale_tril=np.full((len(x), 1, 1), 0.3))

    def test_rows_within_stay_as_they_are(self, rows, limits):
        found = Donors(rows).beyond(self.predict, rows, limits)
        np.testing.assert_array_equal(found.covariance, self.predict(rows).covariance)

    def test_the_further_out_the_wider(self, rows, limits):
        x = np.zeros((5, 3))
        x[:, 2] = limits.upper[2] + limits.margin[2] * np.array([0.05, 0.5, 1.0, 2.0, 1e30])
        own = self.predict(x)
        found = Donors(rows).beyond(self.predict, x, limits)
        assert type(found) is MultivariateStudentT
        np.testing.assert_allclose(found.mean, own.mean)
        added = (found.variance - own.variance)[:, 0]
        assert added[0] == 0.0
        weight = 1.0 - np.exp(-0.5 * np.array([0.5, 1.0, 2.0, np.inf]) ** 2)
        distance = own.mean[1:, 0] ** 2 + 1.0  # of normal values around 0
        np.testing.assert_allclose(added[1:], weight * distance, rtol=0.25)

    def test_all_inputs_beyond(self, rows, limits):
        x = np.full((2, 3), 100.0)
        found = Donors(rows).beyond(self.predict, x, limits)
        assert (found.variance > self.predict(x).variance + 1.0).all()


def test_the_estimator_widens_and_copies_do(rng):
    x = rng.uniform(-1.0, 1.0, size=(200, 2))
    y = 2.0 * x + 0.1 * rng.normal(size=(200, 2))
    model = MultivariateNormalRegressor(
        hidden=(8,), epochs=60, random_state=0, cv=None, embedding=None, mean=None, tails="normal"
    ).fit(x, y)
    new = np.array([[0.0, 0.0], [0.0, 8.0]])
    for one in (model, pickle.loads(pickle.dumps(model))):
        within, out = one.predict_distribution(new).stddev
        assert out[1] > 5.0 * within[1]
        assert out[1] > 1.0  # the targets' own spread, about
    logs = clone(model).set_params(target_transform="log").fit(x, np.exp(y))
    mean = np.exp(logs.predict_distribution(new).base.mean)
    np.testing.assert_allclose(logs.predict(new), mean, rtol=0.3)
    within, out = predict_distribution(members_of([model.model_]), new).stddev
    assert out[1] < 5.0 * within[1]
