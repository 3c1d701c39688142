"""The estimator's tails: a normal or a Student's t, chosen by the rows held out."""

import numpy as np
import pytest

import keras_mvn as kmvn
from keras_mvn.calibration import Temperature
from keras_mvn.estimator import MultivariateNormalRegressor

SMALL = {"hidden": (8,), "epochs": 40, "batch_size": 100, "random_state": 0, "learning_rate": 0.02}
SMALL |= {"cv": None, "embedding": None, "mean": None, "n_components": 1}


def table(nu, rows=900, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    z = rng.multivariate_normal([0, 0], [[1.0, 0.7], [0.7, 1.0]], size=rows)
    z /= np.sqrt(rng.chisquare(nu, size=(rows, 1)) / nu)
    return x, (x[:, :2] + 0.5 * z) * [1.0, 100.0]


@pytest.fixture(scope="module")
def heavy():
    x, y = table(2.5)
    return MultivariateNormalRegressor(**SMALL).fit(x, y)


@pytest.mark.elsewhere(False)
class TestHeavyTails:
    def test_a_t_is_chosen(self, heavy):
        first, second = heavy.selection_
        assert (first["tails"], second["tails"]) == ("t", "normal")
        assert first["validation_nll"] < second["validation_nll"] - 0.2
        x, y = table(2.5, seed=1)
        t = heavy.predict_distribution(x)
        assert isinstance(t, kmvn.MultivariateStudentT)
        assert 2.0 < t.degrees_of_freedom.mean() < 5.0
        normal = MultivariateNormalRegressor(**{**SMALL, "tails": "normal"}).fit(*table(2.5))
        assert isinstance(normal.predict_distribution(x), kmvn.MultivariateNormal)
        assert heavy.score(x, y) > normal.score(x, y) + 0.2

    def test_all_questions_are_answered_by_the_t(self, heavy):
        x, y = table(2.5, rows=2000, seed=2)
        t = heavy.predict_distribution(x)
        assert isinstance(heavy.calibration_, Temperature)
        mean, stddev = heavy.predict(x, return_std=True)
        np.testing.assert_allclose(mean, t.mean)
        np.testing.assert_allclose(stddev, t.stddev)
        assert heavy.score(x, y) == pytest.approx(t.log_prob(y).mean())
        lower, upper = heavy.predict_interval(x, 0.9)
        inside = ((lower <= y) & (y <= upper)).mean(axis=0)
        np.testing.assert_allclose(inside, 0.9, atol=0.06)
        assert heavy.predict_region(x, 0.9).contains(y).mean() == pytest.approx(0.9, abs=0.06)
        np.testing.assert_allclose(heavy.predict_quantiles(x, 0.95), t.quantile(0.95))
        draws = heavy.sample_y(x[:5], 4000)
        np.testing.assert_allclose(
            np.median(draws, axis=-1), t[:5].location, atol=0.1 * t.stddev.max()
        )

    def test_an_ensemble_has_the_moments_of_its_mixture(self):
        x, y = table(2.5, rows=400)
        settings = {**SMALL, "tails": "t", "epochs": 15, "calibration": None}
        model = MultivariateNormalRegressor(n_members=2, **settings).fit(x, y)
        found = model.predict_distribution(x[:50])
        assert isinstance(found, kmvn.MultivariateStudentT)
        mixture = model.ensemble_.predict(x[:50])
        np.testing.assert_allclose(found.mean, mixture.mean, rtol=1e-9)
        np.testing.assert_allclose(found.covariance, mixture.covariance, rtol=1e-9)
        nu = np.array([one.degrees_of_freedom[0] for one in mixture.components])
        np.testing.assert_allclose(found.degrees_of_freedom, 1.0 / np.mean(1.0 / nu))

    @pytest.mark.parametrize("calibration", ["coverage", "per_target", "matrix", "conformal"])
    def test_calibrations(self, heavy, calibration):
        x, y = table(2.5)
        settings = {**SMALL, "tails": "t", "epochs": 15, "calibration": calibration}
        model = MultivariateNormalRegressor(**settings).fit(x, y)
        x, y = table(2.5, rows=2000, seed=2)
        assert isinstance(model.predict_distribution(x), kmvn.MultivariateStudentT)
        assert model.predict_region(x, 0.9).contains(y).mean() == pytest.approx(0.9, abs=0.1)


@pytest.mark.elsewhere(False)
class TestChoice:
    def test_the_best_structure_gets_both(self):
        x, y = table(30.0, rows=300)
        model = MultivariateNormalRegressor("auto", **{**SMALL, "epochs": 4}).fit(x, y)
        tried = model.selection_
        best = min((one for one in tried if one["tails"] == "t"), key=lambda o: o["validation_nll"])
        (normal,) = (one for one in tried if one["tails"] == "normal")
        assert normal["name"] == best["name"]
        assert tried == sorted(tried, key=lambda one: one["validation_nll"])

    def test_without_validation_rows_it_is_a_normal(self):
        x, y = table(3.0, rows=100)
        settings = {**SMALL, "epochs": 2, "validation_fraction": 0.0, "calibration": None}
        model = MultivariateNormalRegressor(**settings).fit(x, y)
        assert isinstance(model.predict_distribution(x), kmvn.MultivariateNormal)
        assert not hasattr(model, "selection_")

    def test_other_losses_are_for_normals(self):
        x, y = table(3.0, rows=100)
        settings = {**SMALL, "epochs": 2, "calibration": None}
        model = MultivariateNormalRegressor(loss="crps", covariance="diagonal", **settings)
        assert isinstance(model.fit(x, y).predict_distribution(x), kmvn.MultivariateNormal)
        fixed = MultivariateNormalRegressor(loss=kmvn.losses.StudentT(4.0), **settings)
        t = fixed.fit(x, y).predict_distribution(x)
        np.testing.assert_allclose(t.degrees_of_freedom, 4.0)
