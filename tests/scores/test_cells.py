"""The log score of rounded values, against integrals of the density by other routes."""

import numpy as np
import pytest
from scipy import integrate, stats

import keras_mvn as kmvn
from answers import ANSWERS
from keras_mvn import scores

NORMAL = kmvn.MultivariateNormal(
    [0.3, -0.2, 1.0], covariance=[[1.0, 0.6, 0.2], [0.6, 2.0, -0.5], [0.2, -0.5, 1.5]]
)


def of_scipy(normal, y, widths):
    """−log P by SciPy's multivariate normal on the corners of the box."""
    law = stats.multivariate_normal(normal.mean, normal.covariance)
    box = law.cdf(y + widths / 2, lower_limit=y - widths / 2)
    return -np.log(box)


@pytest.mark.parametrize("width", [0.05, 1.0, 3.0])
def test_a_normal_against_scipy(width):
    y = np.array([1.0, 0.5, 0.0])
    found = scores.cell_log_score(NORMAL, y, width)
    assert abs(found - of_scipy(NORMAL, y, np.full(3, width))) < 0.01


def test_a_spike_within_the_cell_is_integrated():
    spike = kmvn.MultivariateNormal(NORMAL.mean, covariance=1e-6 * NORMAL.covariance)
    inside = scores.cell_log_score(spike, [0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    assert abs(inside) < 1e-6
    # half of the spike is in the cell of the first target
    edge = scores.cell_log_score(spike, [0.8, 0.0, 1.0], [1.0, 1.0, 1.0])
    assert abs(edge - np.log(2.0)) < 0.01


def test_one_rounded_target_given_a_continuous_one_and_a_gap():
    y, widths = np.array([[1.0, 0.5, np.nan]]), np.array([2.0, 0.0, 1.0])
    found = scores.cell_log_score(NORMAL, y, widths, "marginalize")[0]
    pair = stats.multivariate_normal(NORMAL.mean[:2], NORMAL.covariance[:2, :2])
    expected, _ = integrate.quad(lambda a: pair.pdf([a, 0.5]), 0.0, 2.0)
    assert abs(found + np.log(expected)) < 0.01
    narrow = kmvn.MultivariateNormal([[1.0, 0.5, 0.0]], covariance=1e-8 * NORMAL.covariance)
    found = scores.cell_log_score(narrow, y, widths, "marginalize")[0]
    assert abs(found - scores.log_score(narrow.marginal([1]), [[0.5]])[0]) < 1e-6


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_against_quadrature(name):
    answer = ANSWERS[name]
    y = answer.median + 0.4
    widths = np.full(answer.event_size, 0.5)
    found = scores.cell_log_score(answer, y, widths)
    u = (np.arange(60) + 0.5) / 60 - 0.5
    grid = np.stack(np.meshgrid(*[u] * answer.event_size), -1).reshape(-1, answer.event_size)
    cell = grid * widths
    shape = (len(grid), *(1,) * len(answer.batch_shape), answer.event_size)
    density = np.exp(answer.log_prob(np.asarray(y) + cell.reshape(shape))).mean(axis=0)
    expected = -np.log(density * widths.prod())
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_a_tall_density_on_an_atom_gains_nothing():
    rng = np.random.default_rng(0)
    y = rng.poisson(0.1, size=(500, 1)).astype(float)
    honest = kmvn.MultivariateNormal(y.mean(0), covariance=np.cov(y.T).reshape(1, 1))
    atom = kmvn.MultivariateNormal([0.0], covariance=[[1e-12]])
    assert np.median(scores.log_score(atom, y)) < -10
    assert scores.cell_log_score(atom, y[y == 0][:, None], 1.0).mean() < 1e-9
    assert scores.cell_log_score(atom, y, 1.0).mean() > scores.cell_log_score(honest, y, 1.0).mean()


def test_evaluate_has_the_rows_with_a_resolution():
    y = np.round(NORMAL.sample(400, seed=0))
    found = scores.evaluate(NORMAL, y, scores=["cell_nll", "cell_nll_per_target"], resolution=1.0)
    mean = scores.cell_log_score(NORMAL, y, 1.0).mean()
    np.testing.assert_allclose(found["cell_nll"].mean, mean, rtol=1e-9)
    np.testing.assert_allclose(found["cell_nll_per_target"].mean, mean / 3, rtol=1e-9)
    assert "cell_nll" not in scores.evaluate(NORMAL, y)
    with pytest.raises(ValueError, match="resolution"):
        scores.evaluate(NORMAL, y, resolution=[1.0, 2.0])
    with pytest.raises(ValueError, match="negative"):
        scores.cell_log_score(NORMAL, y, -1.0)
