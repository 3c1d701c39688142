"""Scores of every kind of answer, against quadrature of its density and against draws."""

import numpy as np
import pytest
import scipy.stats

from answers import ANSWERS, Plane, student
from keras_mvn import Mixture, evaluate, scores
from keras_mvn.covariances import LowRank
from keras_mvn.distributions import MultivariateStudentT, TransformedDistribution

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", params=list(ANSWERS))
def case(request):
    answer = ANSWERS[request.param]
    return answer, Plane(answer), answer.quantile([0.3, 0.9]) * [1.0, 1.1]


def tolerance(answer):
    """What 1000 draws allow, where there is no closed form."""
    return 0.06 if isinstance(answer, TransformedDistribution) else 5e-3


def test_log_scores(case):
    answer, plane, y = case
    np.testing.assert_allclose(scores.log_score(answer, y), -answer.log_prob(y))
    gap = y - plane.mean_of(plane.y)
    sigma = plane.mean_of(
        (plane.y - plane.mean_of(plane.y))[..., :, None]
        * (plane.y - plane.mean_of(plane.y))[..., None, :]
    ).reshape(2, 2)
    expected = np.log(np.linalg.det(sigma)) + (gap @ np.linalg.inv(sigma) * gap).sum(axis=1)
    np.testing.assert_allclose(scores.dawid_sebastiani(answer, y), expected, rtol=0.03, atol=0.02)


def test_crps(case):
    """∫ (F − 1{y ≤ x})² dx, by the marginal distribution functions."""
    answer, plane, y = case
    found = scores.crps(answer, y)
    for j in range(2):
        x = plane.axes[j]
        at = np.stack([x] * 2, axis=-1)
        cdf = answer.marginal_cdf(at)[:, j]
        for row in range(2):
            integrand = (cdf - (x >= y[row, j])) ** 2
            expected = (integrand * plane.widths[j]).sum()
            scale = answer.stddev[j]
            assert found[row, j] == pytest.approx(expected, abs=(0.02 + tolerance(answer)) * scale)


def _draws(answer, seed):
    return answer.sample(200_000, seed=seed)


def test_energy_and_variogram(case):
    answer, _, y = case
    a, b = _draws(answer, 1), _draws(answer, 2)
    near = np.linalg.norm(a[:, None] - y, axis=-1).mean(axis=0)
    spread = np.linalg.norm(a - b, axis=-1).mean()
    slack = tolerance(answer) * answer.stddev.max()
    np.testing.assert_allclose(scores.energy_score(answer, y), near - 0.5 * spread, atol=3 * slack)
    expected = np.sqrt(np.abs(a[:, 0] - a[:, 1])).mean()
    found = scores.variogram_score(answer, y)
    np.testing.assert_allclose(
        found, (np.sqrt(np.abs(y[:, 0] - y[:, 1])) - expected) ** 2, atol=2.0 * slack
    )


def test_conditional_error(case):
    """|y_i − E[y_i | y_j]|, with the density on a line of the plane."""
    answer, plane, y = case
    found = scores.conditional_error(answer, y)
    for row in range(2):
        for i in range(2):
            line = np.empty((len(plane.axes[i]), 2))
            line[:, i], line[:, 1 - i] = plane.axes[i], y[row, 1 - i]
            inside = np.ones(len(line), bool)
            if isinstance(answer, TransformedDistribution):
                inside = (line > answer.transform.lowest).all(axis=1)
            weights = np.zeros(len(line))
            weights[inside] = np.exp(answer.log_prob(line[inside]))
            weights *= plane.widths[i]
            mean = (weights * line[:, i]).sum() / weights.sum()
            expected = abs(y[row, i] - mean)
            assert found[row, i] == pytest.approx(expected, abs=0.01 * answer.stddev[i])


def test_interval_score(case):
    answer, _, y = case
    lower, upper = answer.interval(0.8)
    expected = upper - lower + 10.0 * (np.maximum(lower - y, 0) + np.maximum(y - upper, 0))
    np.testing.assert_allclose(scores.interval_score(answer, y, 0.8), expected, rtol=1e-12)


def test_evaluate(case):
    """Every row of the table, from calibrated draws, with gaps."""
    answer, _, _ = case
    batch = answer.broadcast_to((300,))
    y = batch.sample(seed=4)
    found = evaluate(batch, y)
    assert found["nll"].mean == pytest.approx(-batch.log_prob(y).mean())
    assert found["coverage_90"].mean == pytest.approx(0.9, abs=0.06)
    assert found["marginal_coverage_50"].mean == pytest.approx(0.5, abs=0.07)
    assert found["calibration_error"].mean < 0.06
    gaps = np.where(np.random.default_rng(0).random(y.shape) < 0.2, np.nan, y)[:150]
    batch = batch[:150]
    holes = evaluate(batch, gaps, missing="marginalize", levels=0.9)
    expected = -batch.log_prob(gaps, "marginalize")[~np.isnan(gaps).all(axis=1)]
    assert holes["nll"].mean == pytest.approx(expected.mean())
    assert holes["coverage_90"].mean == pytest.approx(0.9, abs=0.07)


class TestManyTargets:
    def test_factors_and_eigenvalues_agree(self, rng):
        """The energy score of a low-rank t with many targets takes another path."""
        y_pred = np.concatenate(
            [rng.normal(size=(3, 40)), np.exp(rng.normal(size=(3, 40))), rng.normal(size=(3, 40))],
            1,
        )
        t = MultivariateStudentT.from_prediction(
            y_pred, LowRank(1), layout="packed", degrees_of_freedom=3.0
        )
        dense = MultivariateStudentT(t.location, 3.0, scale_matrix=t.scale_matrix)
        y = t.sample(seed=0)
        y[0, :7] = np.nan
        for score in (scores.energy_score, scores.conditional_error, scores.variogram_score):
            np.testing.assert_allclose(
                score(t, y, missing="marginalize"), score(dense, y, missing="marginalize"),
                rtol=1e-7,
            )  # fmt: skip

    def test_one_target_is_the_crps(self):
        t = MultivariateStudentT([[1.0]], 2.2, scale_matrix=[[4.0]])
        for answer in (t, Mixture([t, t + 3.0], [0.5, 0.5])):
            np.testing.assert_allclose(
                scores.energy_score(answer, [[5.0]]), scores.crps(answer, [[5.0]])[:, 0], rtol=1e-4
            )

    def test_crps_of_a_t_in_closed_form(self):
        """Jordan, Krüger & Lerch, "Evaluating probabilistic forecasts with scoringRules", 2019."""
        nu, z = 4.0, 1.7
        one, beta = scipy.stats.t(nu), scipy.special.beta
        expected = z * (2 * one.cdf(z) - 1) + 2 * one.pdf(z) * (nu + z**2) / (nu - 1)
        expected -= 2 * np.sqrt(nu) / (nu - 1) * beta(0.5, nu - 0.5) / beta(0.5, 0.5 * nu) ** 2
        t = MultivariateStudentT([0.0], nu, scale_matrix=[[1.0]])
        assert scores.crps(t, [z])[0] == pytest.approx(expected, rel=1e-9)


def test_what_has_no_mean_is_refused():
    cauchy = student(1.0)
    with pytest.raises(ValueError, match="no mean"):
        scores.crps(cauchy, [0.0, 0.0])
    with pytest.raises(ValueError, match="no mean"):
        scores.energy_score(cauchy, [0.0, 0.0])
    with pytest.raises(ValueError, match="no covariance"):
        scores.dawid_sebastiani(student(2.0), [0.0, 0.0])
    assert scores.log_score(cauchy, [1.0, 2.0]) == pytest.approx(-cauchy.log_prob([1.0, 2.0]))
