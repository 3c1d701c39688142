"""Recalibration, conformal regions and diagnoses of mixtures, by known truths and other routes."""

import numpy as np
import pytest
from scipy import optimize, stats

from keras_mvn import Mixture, MultivariateNormal
from keras_mvn.calibration import PerTarget, Temperature, diagnose
from keras_mvn.calibration._conformal_levels import ConformalLevels
from keras_mvn.calibration._standardized import Standardized
from keras_mvn.distributions import MultivariateStudentT
from keras_mvn.estimator._calibration import calibration_kind
from keras_mvn.scores._observations import Observations

pytestmark = pytest.mark.once

SIGMA = np.array([[1.0, 0.6], [0.6, 0.8]])


def mixtures(rows, seed=0, nu=None):
    """Two components some deviations apart, with locations and weights that differ by row."""
    rng = np.random.default_rng([seed, rows])
    centers = rng.normal(size=(2, rows, 2)) + np.array([[[-2.0, 1.0]], [[2.0, -1.0]]])
    share = rng.uniform(0.2, 0.8, size=rows)
    scale = np.broadcast_to(SIGMA, (rows, 2, 2))
    if nu is None:
        parts = [MultivariateNormal(one, covariance=scale) for one in centers]
    else:
        parts = [MultivariateStudentT(one, nu, scale_matrix=scale) for one in centers]
    return Mixture(parts, np.stack([share, 1.0 - share]))


def gaps(y, share, seed=0):
    y = y.copy()
    y[np.random.default_rng(seed).random(y.shape) < share] = np.nan
    return y


class TestTemperature:
    @pytest.mark.parametrize("nu", [None, 5.0])
    @pytest.mark.parametrize("share", [0.0, 0.3])
    def test_the_most_likely_factor_is_that_of_a_search(self, nu, share):
        answer = mixtures(300, nu=nu)
        y = gaps(answer.rescale(1.6).sample(seed=1), share)
        found = Temperature.fit(answer, y, missing="marginalize", robust=False).temperature

        def loss(log_factor):
            scaled = answer.rescale(np.exp(log_factor))
            return -scaled.log_prob(y, missing="marginalize").sum()

        best = optimize.minimize_scalar(loss, bounds=(-2.0, 2.0), options={"xatol": 1e-10})
        assert found == pytest.approx(np.exp(best.x), rel=1e-6)

    def test_one_component_counts_as_several_alike(self):
        alone = MultivariateNormal(np.zeros((200, 2)), covariance=np.stack([SIGMA] * 200))
        y = alone.rescale(1.3).sample(seed=2)
        for robust in (True, False):
            of_mixture = Temperature.fit(Mixture([alone, alone]), y, robust=robust)
            of_one = Temperature.fit(alone, y, robust=robust)
            assert of_mixture.temperature == pytest.approx(of_one.temperature, rel=1e-8)

    @pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
    def test_one_row_of_a_hundred_moves_it_by_a_few_percent(self, size):
        answer = mixtures(100)
        y = answer.sample(seed=3)
        clean = Temperature.fit(answer, y).temperature
        odd = y.copy()
        odd[7] = size
        assert Temperature.fit(answer, odd).temperature == pytest.approx(clean, rel=0.05)
        assert Temperature.fit(answer, odd, robust=False).temperature > 5.0 * clean

    @pytest.mark.parametrize("share", [0.0, 0.3])
    def test_the_covering_factor_gives_regions_their_coverage(self, share):
        answer = mixtures(1000)
        y = gaps(answer.rescale(2.0).sample(seed=4), share)
        found = Temperature.fit(answer, y, missing="marginalize", objective="coverage")
        assert found.temperature == pytest.approx(2.0, rel=0.06)
        new = mixtures(4000, seed=1)
        inside = found.apply(new).region(0.9).contains(new.rescale(2.0).sample(seed=5))
        assert inside.mean() == pytest.approx(0.9, abs=0.02)

    def test_too_few_rows_are_told(self):
        answer = mixtures(8)
        with pytest.raises(ValueError, match="8 calibration rows are too few"):
            Temperature.fit(answer, answer.sample(seed=0), objective="coverage")

    def test_means_and_weights_stay(self):
        answer = mixtures(5)
        applied = Temperature(2.0).apply(answer)
        for before, after in zip(answer.components, applied.components, strict=True):
            np.testing.assert_allclose(after.covariance, 4.0 * before.covariance, rtol=1e-12)
            np.testing.assert_array_equal(after.mean, before.mean)
        np.testing.assert_allclose(applied.weights, answer.weights)

    def test_other_recalibrations_say_that_they_take_ellipsoids(self):
        answer = mixtures(50)
        with pytest.raises(TypeError, match=r"PerTarget\.fit takes elliptical"):
            PerTarget.fit(answer, answer.sample(seed=0))
        with pytest.raises(TypeError, match=r"PerTarget\.apply takes elliptical"):
            PerTarget((1.0, 1.0)).apply(answer)


class TestConformal:
    def test_coverage_if_the_model_is_wrong(self):
        """Twenty repetitions with 200 rows: within 3.5 standard errors of 90 %."""
        inside, of_targets, together = [], [], []
        for seed in range(20):
            calibration, new = mixtures(200, seed), mixtures(200, seed + 100)
            truth = calibration.rescale(1.7).sample(seed=seed), new.rescale(1.7).sample(seed=-1 % 7)
            found = ConformalLevels.fit(calibration, truth[0])
            inside.append(found.region(new, 0.9).contains(truth[1]).mean())
            low, high = found.interval(new, 0.9, None)
            of_targets.append(((truth[1] >= low) & (truth[1] <= high)).mean(axis=0))
            low, high = found.interval(new, 0.9, "bonferroni")
            together.append(((truth[1] >= low) & (truth[1] <= high)).all(axis=1).mean())
        for values in (inside, *np.transpose(of_targets), together):
            error = np.std(values, ddof=1) / np.sqrt(20)
            assert abs(np.mean(values) - 0.902) < 3.5 * error + 0.002

    def test_the_estimators_kind_depends_on_the_answer(self):
        kind = calibration_kind("conformal")
        answer = mixtures(50)
        assert isinstance(kind.fit(answer, answer.sample(seed=0)), ConformalLevels)
        alone = answer.moments()
        assert not isinstance(kind.fit(alone, alone.sample(seed=0)), ConformalLevels)

    def test_too_few_rows_give_unbounded_regions_and_intervals(self):
        answer = mixtures(5)
        found = ConformalLevels.fit(answer, answer.sample(seed=0))
        with pytest.warns(UserWarning, match="5 calibration rows are too few"):
            region = found.region(answer, 0.9)
        assert region.contains(answer.sample(seed=1) + 1e3).all()
        with pytest.warns(UserWarning, match="5 calibration rows are too few"):
            low, high = found.interval(answer, 0.9, None)
        assert np.isneginf(low).all()
        assert np.isposinf(high).all()


class TestDiagnosis:
    def test_of_the_truth_nothing_deviates(self):
        answer = mixtures(3000)
        y = gaps(answer.sample(seed=6), 0.2)
        found = diagnose(answer, y, missing="marginalize")
        assert min(found.p_values.values()) > 0.01
        assert found.temperature == pytest.approx(1.0, abs=0.03)
        np.testing.assert_allclose(found.dispersion, 1.0, atol=0.1)

    def test_of_too_small_errors_the_size_deviates(self):
        answer = mixtures(2000)
        found = diagnose(answer, answer.rescale(1.3).sample(seed=7))
        assert "size" in found.deviations
        assert found.temperature > 1.1
        assert "overconfident" in str(found)

    def test_of_the_closest_normal_the_shape_deviates(self):
        answer = mixtures(2000)
        found = diagnose(answer.moments(), answer.sample(seed=8))
        assert {"radial", "tails"} <= set(found.deviations)

    def test_rosenblatt_by_quadrature(self):
        answer = mixtures(3)
        y = answer.sample(seed=9)
        z = Standardized.of(Observations.read(answer, y, "raise")).independent
        for i in range(3):
            one = answer[i]
            grid = np.linspace(-15.0, y[i, 1], 20_001)
            density = one.log_prob(np.stack([np.full_like(grid, y[i, 0]), grid], axis=1))
            mass = np.trapezoid(np.exp(density), grid)
            total = np.exp(one.marginal([0]).log_prob(y[i, :1]))
            first = one.marginal_cdf(y[i])[0]
            expected = stats.norm.ppf([first, mass / total])
            np.testing.assert_allclose(z[i], expected, atol=1e-5)
