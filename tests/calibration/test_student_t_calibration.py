"""Calibration of predictions with tails: by likelihood where there is one, and by ranks."""

import numpy as np
import pytest
import scipy.optimize

from keras_mvn import Mixture
from keras_mvn.calibration import (
    MatrixScaling,
    PerTarget,
    RadialIsotonic,
    SplitConformal,
    Temperature,
    diagnose,
)
from keras_mvn.calibration._conformal_scores import ConformalScores
from keras_mvn.distributions import MultivariateStudentT

pytestmark = pytest.mark.once

ROWS, D = 3000, 3
NU = np.where(np.arange(ROWS) % 2, 4.0, 9.0)


@pytest.fixture(scope="module")
def predicted():
    rng = np.random.default_rng(0)
    root = np.tril(rng.normal(size=(ROWS, D, D)), -1) / 2 + np.eye(D)
    return MultivariateStudentT(rng.normal(size=(ROWS, D)), NU, scale_tril=root)


@pytest.fixture(scope="module")
def y(predicted):
    """Draws from distributions that are wider than predicted, target by target."""
    return predicted.rescale_targets([1.3, 0.8, 2.0]).sample(seed=1)


def likelihood(predicted, y, apply):
    return lambda log_factors: -apply(np.exp(log_factors)).log_prob(y, "marginalize").mean()


def with_gaps(y):
    return np.where(np.random.default_rng(2).random(y.shape) < 0.3, np.nan, y)


@pytest.mark.parametrize("gaps", [False, True])
class TestMostLikely:
    def test_temperature(self, predicted, y, gaps):
        y = with_gaps(y) if gaps else y
        found = Temperature.fit(
            predicted, y, missing="marginalize", objective="likelihood", robust=False
        )
        loss = likelihood(predicted, y, predicted.rescale)
        best = scipy.optimize.minimize_scalar(loss, bracket=(-1.0, 1.0), tol=1e-10)
        assert found.temperature == pytest.approx(np.exp(best.x), rel=1e-5)

    def test_per_target(self, predicted, y, gaps):
        y = with_gaps(y) if gaps else y
        found = PerTarget.fit(predicted, y, missing="marginalize", objective="joint", robust=False)
        loss = likelihood(predicted, y, predicted.rescale_targets)
        best = scipy.optimize.minimize(loss, np.zeros(D), tol=1e-9)
        np.testing.assert_allclose(found.factors, np.exp(best.x), rtol=2e-4)
        np.testing.assert_allclose(found.factors, [1.3, 0.8, 2.0], rtol=0.06)

    def test_each_target_alone(self, predicted, y, gaps):
        y = with_gaps(y) if gaps else y
        found = PerTarget.fit(
            predicted, y, missing="marginalize", objective="marginal", robust=False
        )
        for j in range(D):
            one, seen = predicted.marginal(j), ~np.isnan(y[:, j])
            loss = likelihood(one[seen], y[seen, j : j + 1], one[seen].rescale)
            best = scipy.optimize.minimize_scalar(loss, bracket=(-1.0, 1.0), tol=1e-10)
            assert found.factors[j] == pytest.approx(np.exp(best.x), rel=1e-5)


def test_matrix_scaling(predicted):
    c = np.array([[1.3, 0.0, 0.0], [0.6, 0.9, 0.0], [-0.4, 0.3, 1.7]])
    y = predicted.transform_errors(c).sample(seed=3)
    found = MatrixScaling.fit(predicted, y, shrinkage=0.0, robust=False)
    np.testing.assert_allclose(found.scale_tril, c, atol=0.08)
    best = predicted.transform_errors(found.scale_tril).log_prob(y).mean()
    for i, j in zip(*np.tril_indices(D), strict=True):  # a stationary point of the likelihood
        for step in (-1e-3, 1e-3):
            near = np.array(found.scale_tril)
            near[i, j] += step
            assert predicted.transform_errors(near).log_prob(y).mean() < best


def test_coverage(predicted, y):
    found = Temperature.fit(predicted, y, objective="coverage", level=0.8)
    inside = found.apply(predicted).region(0.8).contains(y).mean()
    assert inside == pytest.approx(0.8, abs=1e-3)
    fresh = predicted.rescale_targets([1.3, 0.8, 2.0]).sample(seed=9)
    for region in (
        SplitConformal.fit(predicted, y, 0.8).region(predicted),
        RadialIsotonic.fit(predicted, y).region(predicted, 0.8),
        ConformalScores.fit(predicted, y).region(predicted, 0.8),
    ):
        assert region.contains(fresh).mean() == pytest.approx(0.8, abs=0.03)
    lower, upper = ConformalScores.fit(predicted, y).interval(predicted, 0.8, None)
    inside = ((fresh >= lower) & (fresh <= upper)).mean(axis=0)
    np.testing.assert_allclose(inside, 0.8, atol=0.03)


class TestDiagnosis:
    def test_right_predictions_deviate_by_chance_only(self, predicted):
        found = diagnose(predicted, predicted.sample(seed=5))
        assert found.deviations == ()
        assert found.temperature == pytest.approx(1.0, abs=0.02)
        assert found.calibration_error < 0.02
        np.testing.assert_allclose(found.dispersion, 1.0, atol=0.08)
        assert min(found.p_values.values()) > 0.01

    def test_wrong_ones_are_found(self, predicted, y):
        assert "covariance" in diagnose(predicted, y).deviations
        thin = diagnose(predicted, predicted.moments().sample(seed=6))
        assert "tails" in thin.deviations


def test_what_is_not_elliptical_is_refused(predicted, y):
    mixture = Mixture([predicted, predicted + 1.0])
    for ask in (
        lambda: PerTarget.fit(mixture, y),
        lambda: PerTarget((2.0, 1.0, 1.0)).apply(mixture),
        lambda: SplitConformal.fit(mixture, y),
    ):
        with pytest.raises(TypeError, match=r"takes elliptical.*received Mixture.*`\.moments\(\)`"):
            ask()
