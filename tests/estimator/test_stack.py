"""Mixtures of the candidates: what is best on a table is found, and several are combined."""

import pickle

import numpy as np
import pytest

from keras_mvn._training import stacking
from keras_mvn.distributions import Mixture
from keras_mvn.estimator import MultivariateNormalRegressor

pytestmark = pytest.mark.once

ROOT = np.array([[1.0, 0.0], [0.8, 0.6]])


def noise(n, seed, scale):
    return scale * (np.random.default_rng([seed, 1]).normal(size=(n, 2)) @ ROOT.T)


def inputs(n, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, size=(n, 3))


def heteroscedastic(n, seed=0):
    """Noise that grows tenfold: one covariance is no use, a network is needed."""
    x = inputs(n, seed)
    return x, x[:, :2] + noise(n, seed, 0.3 * np.exp(1.5 * x[:, 2:]))


def linear(n, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 12))
    slopes = np.random.default_rng(9).normal(size=(12, 2))
    return x, x @ slopes + noise(n, seed, 0.1)


def steps(n, seed=0):
    x = inputs(n, seed)
    return x, np.floor(12 * np.abs(x[:, :2])) % 5 + noise(n, seed, 0.05)


def smooth(n, seed=0):
    x = inputs(n, seed)
    return x, np.c_[np.sin(4 * x[:, 0] + x[:, 1]), np.cos(3 * x[:, 2])] + noise(n, seed, 0.02)


QUICK = {"hidden": (16,), "epochs": 20, "random_state": 0, "embedding": None, "cv": None}
QUICK["tails"] = "normal"


class TestWhatIsBest:
    @pytest.mark.parametrize(
        ("table", "means", "network"),
        [
            (heteroscedastic, {None, "ridge", "gaussian_process"}, True),
            (linear, {"ridge", "gaussian_process"}, False),  # its kernel has a linear part
            (steps, {"trees"}, None),
            (smooth, {"gaussian_process"}, None),
        ],
    )
    def test_is_found(self, table, means, network):
        fitted = MultivariateNormalRegressor(**QUICK).fit(*table(600))
        best = fitted.selection_[0]
        assert best["weight"] > 0.5
        assert best["mean"] in means
        assert network is None or (best["epochs"] > 0) == network


@pytest.fixture(scope="module")
def mixed():
    """Three candidates with given weights."""
    x, y = heteroscedastic(103)
    settings = {**QUICK, "epochs": 4, "embedding": "auto", "cv": 5, "n_members": 6}

    def voted(score, candidates, gain):
        weights = np.zeros(candidates)
        weights[[0, -2, -1]] = 0.2, 0.5, 0.3  # after so few epochs, networks are the last
        return weights, 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacking, "_voted", voted)
        return MultivariateNormalRegressor(**settings).fit(x, y), x, y


class TestMixture:
    def test_weights_are_those_of_the_candidates(self, mixed):
        fitted, _, _ = mixed
        assert [one["weight"] for one in fitted.selection_[:4]] == [0.5, 0.3, 0.2, 0.0]
        assert fitted.weights_.sum() == pytest.approx(1.0)
        trained = [one["epochs"] > 0 for one in fitted.selection_[:3]]
        assert any(trained)
        assert len(fitted.weights_) == len(fitted.ensemble_.members) == 16
        by_score = np.argsort([one["validation_nll"] for one in fitted.selection_[:3]])
        extra = next(i for i in by_score if trained[i])
        expected = np.array([0.5, 0.3, 0.2]) / np.where(np.arange(3) == extra, 6, 5)
        np.testing.assert_allclose(fitted.weights_, [*np.repeat(expected, 5), expected[extra]])

    def test_is_the_mixture_of_its_networks(self, mixed):
        fitted, x, _ = mixed
        parts = []
        for network, center in zip(fitted.ensemble_.members, fitted._centers, strict=True):
            m = np.zeros((len(x), 2)) if center is None else center.predict(x)
            given = x if center is None else np.c_[x, m]
            parts.append(fitted.head_.distribution(network.predict(given, verbose=0)) + m)
        expected = Mixture(parts, fitted.weights_)
        factor = fitted.calibration_.temperature
        answer = fitted.predict_distribution(x)
        np.testing.assert_allclose(answer.mean, expected.mean, rtol=1e-5, atol=1e-6)
        covariance = factor**2 * expected.covariance
        np.testing.assert_allclose(answer.covariance, covariance, rtol=1e-4, atol=1e-7)

    def test_survives_pickling(self, mixed):
        fitted, x, _ = mixed
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_allclose(again.predict(x), fitted.predict(x), rtol=1e-6)
        np.testing.assert_array_equal(again.weights_, fitted.weights_)

    def test_the_best_network_alone_if_asked(self):
        x, y = linear(100)
        quick = {**QUICK, "epochs": 3}
        fitted = MultivariateNormalRegressor(**quick, stack=False).fit(x, y)
        assert fitted.model_ is not None
        assert [one["weight"] for one in fitted.selection_] == [1.0, 0.0]
        np.testing.assert_array_equal(fitted.weights_, [1.0])

    def test_several_networks_have_no_single_model(self, mixed):
        with pytest.raises(AttributeError, match="stack=False"):
            mixed[0].model_  # noqa: B018

    def test_gaps_weights_and_groups(self):
        x, y = linear(120)
        gaps = y.copy()
        gaps[::4, 1] = np.nan
        quick = {**QUICK, "epochs": 3, "cv": 3}
        weight, groups = np.linspace(1, 2, 120), np.arange(120) // 3
        fitted = MultivariateNormalRegressor(**quick).fit(x, gaps, weight, groups=groups)
        best = fitted.selection_[0]
        assert (best["mean"], best["epochs"]) == ("ridge", 0)
        assert fitted.score(x, gaps) > 0.0
