"""Mixtures for every row: found where targets have modes, and everything is asked of them."""

import pickle

import numpy as np
import pytest
from scipy import stats

from keras_mvn.distributions import Mixture, TransformedDistribution
from keras_mvn.estimator import MultivariateNormalRegressor

NOISE = np.array([[0.1, 0.06], [0.06, 0.1]])


def branches(n, seed=0):
    """A route on either side of an obstacle, by inputs that do not say which."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    side = rng.choice([-1.0, 1.0], size=n)
    error = rng.multivariate_normal([0.0, 0.0], NOISE, n)
    return x, centers(x, side) + error


def centers(x, side):
    return np.stack([x[:, 0] + 1.5 * side, x[:, 1] - side], axis=1)


def true_nll(x, y):
    terms = [
        0.5 * stats.multivariate_normal([0.0, 0.0], NOISE).pdf(y - centers(x, side))
        for side in (-1.0, 1.0)
    ]
    return -np.log(sum(terms))


SETTINGS = {
    "hidden": (16,),
    "epochs": 60,
    "random_state": 0,
    "embedding": None,
    "mean": None,
    "cv": 3,
}


@pytest.fixture(scope="module")
def fitted():
    x, y = branches(900)
    y[::50, 0] = np.nan
    return MultivariateNormalRegressor(**SETTINGS).fit(x, y)


@pytest.fixture(scope="module")
def new():
    return branches(1000, seed=1)


class TestAuto:
    def test_a_mixture_is_found_and_close_to_the_truth(self, fitted, new):
        x, y = new
        answer = fitted.predict_distribution(x)
        assert isinstance(answer, Mixture)
        assert fitted.selection_[0]["n_components"] in (2, 4)
        assert {one["n_components"] for one in fitted.selection_} >= {1, 2}
        excess = -answer.log_prob(y) - true_nll(x, y)
        assert excess.mean() < 0.2  # one normal: 1.2

    def test_regions_and_intervals_hold_what_they_say(self, fitted, new):
        x, y = new
        region = fitted.predict_region(x, 0.9)
        assert region.contains(y).mean() == pytest.approx(0.9, abs=0.035)
        low, high = fitted.predict_interval(x, 0.9)
        np.testing.assert_allclose(((y >= low) & (y <= high)).mean(axis=0), 0.9, atol=0.04)

    def test_a_measured_target_says_which_branch(self, fitted):
        answer = fitted.predict_distribution(np.zeros((1, 2)))
        given = answer.condition({0: [1.5]})
        assert given.mean[0, 0] == pytest.approx(-1.0, abs=0.25)
        assert given.stddev[0, 0] < 0.5 < answer.stddev[0, 1]

    def test_copies_predict_the_same(self, fitted, new):
        copy = pickle.loads(pickle.dumps(fitted))
        x, y = new[0][:20], new[1][:20]
        expected = fitted.predict_distribution(x).log_prob(y)
        np.testing.assert_allclose(copy.predict_distribution(x).log_prob(y), expected, rtol=1e-6)

    def test_beyond_the_training_rows_it_widens(self, fitted):
        inside, outside = np.zeros((1, 2)), np.array([[0.0, 30.0]])
        of_both = [fitted.predict_distribution(x) for x in (inside, outside)]
        least = [np.min([one.stddev[0, 1] for one in answer.components]) for answer in of_both]
        assert least[1] > 1.5 * least[0]

    @pytest.mark.once
    def test_one_mode_keeps_one_distribution(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(900, 2))
        y = x + rng.multivariate_normal([0.0, 0.0], NOISE, 900)
        model = MultivariateNormalRegressor(**SETTINGS).fit(x, y)
        assert not isinstance(model.predict_distribution(x[:5]), Mixture)
        weights = [one["weight"] for one in model.selection_ if one["n_components"] == 2]
        assert weights == [0.0]

    @pytest.mark.once
    def test_few_rows_are_not_tried(self):
        x, y = branches(200)
        model = MultivariateNormalRegressor(**{**SETTINGS, "epochs": 2}).fit(x, y)
        assert {one["n_components"] for one in model.selection_} == {1}


@pytest.mark.once
class TestAsAsked:
    def test_the_number_is_kept_on_few_rows(self):
        x, y = branches(120)
        model = MultivariateNormalRegressor(n_components=3, **{**SETTINGS, "epochs": 2}).fit(x, y)
        answer = model.predict_distribution(x[:4])
        assert len(answer.components) == 9  # of three networks
        np.testing.assert_allclose(answer.weights.sum(axis=0), 1.0)

    @pytest.mark.parametrize("calibration", ["conformal", "coverage", None])
    def test_calibrations(self, calibration, new):
        x, y = branches(400)
        given = {**SETTINGS, "epochs": 30, "cv": None, "calibration": calibration}
        model = MultivariateNormalRegressor(n_components=2, **given).fit(x, y)
        inside = model.predict_region(new[0], 0.9).contains(new[1])
        assert inside.mean() == pytest.approx(0.9, abs=0.08)

    def test_tails_a_transform_and_more_members_than_folds(self, new):
        x, y = branches(200)
        given = {**SETTINGS, "epochs": 3, "tails": "t", "n_members": 4}
        model = MultivariateNormalRegressor(n_components=2, target_transform="log", **given)
        model.fit(x, np.exp(y))
        answer = model.predict_distribution(new[0][:10])
        assert isinstance(answer, TransformedDistribution)
        assert len(answer.base.components) == 8
        mean = np.exp(answer.base.sample(20_000, seed=0)).mean(axis=0)
        np.testing.assert_allclose(answer.median > 0, True)
        assert np.isfinite(mean).all()
        inside = model.predict_region(new[0][:10], 0.5).contains(np.exp(new[1][:10]))
        assert inside.shape == (10,)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"n_components": 0}, "n_components=0 must be 'auto' or the number of components"),
            ({"n_components": "two"}, "n_components='two' must be 'auto' or"),
            (
                {"n_components": 2, "tails": "normal", "loss": "crps"},
                "n_components=2 cannot be combined with loss=",
            ),
            ({"n_components": 2, "tails": "t_per_row"}, "combined with tails='t_per_row'"),
            ({"n_components": 2, "calibration": "matrix"}, "combined with calibration='matrix'"),
        ],
    )
    def test_what_does_not_fit_is_told(self, given, message):
        x, y = branches(50)
        with pytest.raises(ValueError, match=message):
            MultivariateNormalRegressor(**given).fit(x, y)
