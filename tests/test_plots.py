"""Pictures: that what is drawn is what was asked for."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from keras_mvn import MultivariateNormal, plots


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.fixture
def normal(rng):
    factor = rng.normal(size=(200, 3, 3)) + 2 * np.eye(3)
    sigma = factor @ np.swapaxes(factor, -1, -2)
    return MultivariateNormal(
        rng.normal(size=(200, 3)), covariance=sigma, target_names=["a", "b", "c"]
    )


def test_ellipses_hold_their_level(axes, normal):
    y = normal.sample(seed=0)
    plots.ellipses(axes, normal, (2, 0), y=y, level=0.8, rows=1)
    outline = np.array(axes.lines[0].get_xydata())
    pair = normal[0].covariance[np.ix_((2, 0), (2, 0))]
    r = outline - normal[0].mean[[2, 0]]
    squared = np.einsum("ni,ij,nj->n", r, np.linalg.inv(pair), r)
    np.testing.assert_allclose(squared, scipy.stats.chi2.ppf(0.8, 2), rtol=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("c", "a")
    np.testing.assert_allclose(axes.lines[2].get_xydata()[0], y[0, [2, 0]])


def test_heatmap_shows_the_mean_correlation(axes, normal):
    plots.correlation_heatmap(axes, normal)
    expected = normal.correlation.mean(axis=0)
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    assert axes.texts[1].get_text() == f"{expected[0, 1]:.2f}"


def test_calibration_curve_of_a_calibrated_model_is_diagonal(axes, normal):
    y = normal.sample(seed=0)
    plots.joint_calibration(axes, {"true": normal, "timid": normal.rescale(3.0)}, y)
    level, true = axes.lines[1].get_data()
    assert np.abs(true - level).max() < 0.12
    timid = axes.lines[2].get_ydata()
    assert (timid[10:90] > true[10:90]).all()


def test_ellipses_need_two_targets_and_a_batch(axes, normal):
    with pytest.raises(ValueError, match="two different targets"):
        plots.ellipses(axes, normal, (1, 1))
    with pytest.raises(ValueError, match="batch of distributions"):
        plots.ellipses(axes, normal[0], (0, 1))


def test_every_prediction_gets_a_curve(axes, normal):
    y = normal.sample(seed=0)
    plots.joint_calibration(axes, {str(i): normal for i in range(9)}, y)
    assert len(axes.lines) == 10
    with pytest.raises(ValueError, match="y has shape"):
        plots.joint_calibration(axes, {"one": normal}, y[0])


def test_heatmap_of_several_batch_axes(axes):
    stack = MultivariateNormal(np.zeros((4, 3, 2)), covariance=np.eye(2))
    plots.correlation_heatmap(axes, stack)
    np.testing.assert_array_equal(axes.images[0].get_array(), np.eye(2))


def test_pairs_are_sorted_by_correlation(normal):
    pairs = plots.pairs_by_correlation(normal)
    mean = np.abs(normal.correlation.mean(axis=0))
    values = [mean[pair] for pair in pairs]
    assert len(pairs) == 3
    assert values == sorted(values, reverse=True)
    assert len(plots.pairs_by_correlation(normal[0])) == 3
