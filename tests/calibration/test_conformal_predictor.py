"""Guarantees for questions: coverage by simulation, whatever is wrong with the model."""

import numpy as np
import pytest

from keras_mvn import Mixture, MultivariateNormal, MultivariateStudentT
from keras_mvn.calibration import ConformalPredictor, SplitConformal
from keras_mvn.distributions import HighestDensityRegion
from keras_mvn.distributions.regions import Ellipsoid

pytestmark = pytest.mark.once

D, N, NEW = 3, 1500, 6000
NAMES = ["a", "b", "c"]
SIGMA = np.array([[1.0, 0.7, 0.0], [0.7, 1.0, -0.3], [0.0, -0.3, 1.0]])


def normals(mean):
    sigma = np.broadcast_to(SIGMA, (len(mean), D, D))
    return MultivariateNormal(mean, covariance=sigma, target_names=NAMES)


def students(mean):
    sigma = np.broadcast_to(SIGMA, (len(mean), D, D))
    return MultivariateStudentT(
        mean, scale_matrix=sigma, degrees_of_freedom=6.0, target_names=NAMES
    )


def mixtures(mean):
    return Mixture([normals(mean - 1.0), normals(mean + 1.5).rescale(0.5)], [0.7, 0.3])


ANSWERS = [normals, students, mixtures]


def world(answers, rows, rng, gaps=0.0):
    """Predictions that are wrong, and what happens: other tails, scales and correlations."""
    mean = 5.0 * rng.normal(size=(rows, D))
    noise = rng.standard_t(3, size=(rows, D)) @ np.array(
        [[1.0, 0.2, 0.0], [0.0, 2.0, 0.5], [0.3, 0.0, 0.4]]
    )
    y = mean + 0.3 + noise
    y[rng.random(y.shape) < gaps] = np.nan
    return answers(mean), y


def assert_covers(inside, level=0.9, error=0.0):
    """Within 3.5 standard errors of calibration and of test rows together."""
    sd = np.sqrt(level * (1 - level) * (1 / N + 1 / len(inside)))
    assert abs(inside.mean() - level) < 3.5 * sd + error


@pytest.mark.parametrize("answers", ANSWERS)
class TestCoverage:
    @pytest.fixture
    def cut(self, answers, rng, request):
        """(predictor, new predictions, new values); fewer rows where draws are needed."""
        gaps = 0.2 if "gaps" in request.node.name else 0.0
        few = answers is mixtures
        predictor = ConformalPredictor.fit(*world(answers, 600 if few else N, rng, gaps))
        return predictor, *world(answers, 1200 if few else NEW, rng, gaps), 0.025 if few else 0.0

    def test_all_targets(self, cut):
        predictor, answer, y, error = cut
        assert_covers(predictor.region(answer).contains(y), error=error)
        assert answer.region(0.9).contains(y).mean() < 0.8  # what the model itself says

    def test_some_of_them(self, cut):
        predictor, answer, y, error = cut
        region = predictor.marginal(["c", "a"]).region(answer.marginal(["c", "a"]), 0.8)
        assert_covers(region.contains(y[:, [2, 0]]), 0.8, error)

    def test_sums_and_differences(self, cut):
        predictor, answer, y, error = cut
        region = predictor.sum(["a", "b"]).region(answer.sum(["a", "b"]))
        assert_covers(region.contains(y[:, :2].sum(axis=1, keepdims=True)), error=error)
        region = predictor.difference("a", "c").region(answer.difference("a", "c"))
        assert_covers(region.contains((y[:, 0] - y[:, 2])[:, None]), error=error)

    def test_functions(self, cut):
        predictor, answer, y, error = cut
        matrix, offset = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), [1.0, -2.0]
        region = predictor.affine(matrix, offset).region(answer.affine(matrix, offset))
        assert_covers(region.contains(y @ matrix.T + offset), error=error)

    def test_the_rest_given_some(self, cut):
        predictor, answer, y, error = cut
        given = answer.condition({"b": y[:, 1]})
        region = predictor.condition("b").region(given)
        assert_covers(region.contains(y[:, [0, 2]]), error=error)
        total = predictor.condition("b").sum().region(given.sum())
        assert_covers(total.contains(y[:, [0, 2]].sum(axis=1, keepdims=True)), error=error)

    def test_gaps_here_and_there(self, cut):
        predictor, answer, y, error = cut
        inside = predictor.region(answer).contains(y)
        complete, nothing = ~np.isnan(y).any(axis=1), np.isnan(y).all(axis=1)
        assert inside[nothing].all()
        # Half of the rows are complete, so that their threshold is less certain.
        assert_covers(inside[complete], error=error + 0.02)
        assert_covers(inside[~complete & ~nothing], error=error + 0.02)

    def test_conditions_with_gaps(self, cut):
        predictor, answer, y, error = cut
        seen = np.flatnonzero(~np.isnan(y).any(axis=1))
        given = answer[seen].condition({"b": y[seen, 1]})
        inside = predictor.condition("b").region(given).contains(y[seen][:, [0, 2]])
        assert_covers(inside, error=error + 0.02)
        assert predictor.condition("b").rows() == predictor.rows()


def test_for_complete_rows_it_is_split_conformal(rng):
    answer, y = world(normals, 200, rng)
    new, _ = world(normals, 5, rng)
    expected = SplitConformal.fit(answer, y, 0.8).region(new)
    found = ConformalPredictor.fit(answer, y).region(new, 0.8)
    assert found.threshold == pytest.approx(expected.squared_radius[0], rel=1e-12)
    np.testing.assert_allclose(found.log_volume, expected.log_volume)
    np.testing.assert_allclose(found.bounds(), expected.bounds())
    assert isinstance(found.shape, Ellipsoid)


def test_mixtures_have_regions_of_highest_density(rng):
    predictor = ConformalPredictor.fit(*world(mixtures, 200, rng))
    region = predictor.region(mixtures(np.zeros((2, D))), 0.7)
    assert isinstance(region.shape, HighestDensityRegion)
    assert np.isfinite(region.log_volume).all()


def test_transformed_targets(rng):
    pytest.importorskip("sklearn")
    answer, y = world(normals, N, rng)
    from keras_mvn.distributions import TransformedDistribution, _transforms

    logged = TransformedDistribution(answer, _transforms.Log(D))
    predictor = ConformalPredictor.fit(logged, np.exp(y))
    new, later = world(normals, NEW, rng)
    region = predictor.region(TransformedDistribution(new, _transforms.Log(D)))
    assert_covers(region.contains(np.exp(later)))


def test_too_few_rows_are_told_and_cover_everything(rng):
    predictor = ConformalPredictor.fit(*world(normals, 8, rng))
    new, y = world(normals, 3, rng)
    with pytest.warns(UserWarning, match="8 calibration rows are too few"):
        region = predictor.region(new)
    assert np.isinf(region.volume).all()
    assert region.contains(1e9 * y).all()


def test_few_rows_with_a_pattern_are_told(rng):
    answer, y = world(normals, 40, rng)
    y[:35, 0] = np.nan
    predictor = ConformalPredictor.fit(answer, y)
    new, later = world(normals, 4, rng)
    region = predictor.marginal(["b", "c"]).region(new.marginal(["b", "c"]))
    assert np.isfinite(region.threshold)
    with pytest.warns(UserWarning, match="5 calibration rows are too few"):
        assert np.isinf(predictor.region(new).threshold)
    assert (predictor.rows(), predictor.rows(["b"])) == (5, 40)
    assert later.shape == (4, D)


def test_what_does_not_fit_is_refused(rng):
    answer, y = world(normals, 50, rng)
    predictor = ConformalPredictor.fit(answer, y)
    with pytest.raises(ValueError, match="targets"):
        predictor.sum().region(answer)
    with pytest.raises(ValueError, match="level"):
        predictor.region(answer, 90)
    with pytest.raises(ValueError, match="no row of y has a value of"):
        ConformalPredictor.fit(answer, np.where([False, True, False], np.nan, y))
    with pytest.raises(ValueError, match="shape"):
        ConformalPredictor.fit(answer, y[:20])
