"""Pictures: that what is drawn is what was asked for."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from keras_mvn import MultivariateNormal, plots

pytestmark = pytest.mark.once


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
    with pytest.raises(ValueError, match="only once"):
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


def outline_of(line):
    return np.array(line.get_xydata())


def squared_distances(points, mean, sigma):
    r = points - mean
    return np.einsum("ni,ij,nj->n", r, np.linalg.inv(sigma), r)


@pytest.mark.parametrize("named", [True, False])
def test_conditioning_shows_before_and_after(axes, normal, named):
    one = (
        normal[3] if named else MultivariateNormal(normal.mean[3], covariance=normal.covariance[3])
    )
    value, y = float(one.mean[1] + 2.0), one.mean + 1.0
    plots.conditioning(axes, one, {1: value}, (2, 0), y=y, level=0.5)
    before, after = axes.lines[0], axes.lines[1]
    sigma, c = one.covariance, scipy.stats.chi2.ppf(0.5, 2)
    keep = [2, 0]
    squared = squared_distances(outline_of(before), one.mean[keep], sigma[np.ix_(keep, keep)])
    np.testing.assert_allclose(squared, c, rtol=1e-6)
    gain = sigma[keep, 1] / sigma[1, 1]
    schur = sigma[np.ix_(keep, keep)] - np.outer(gain, sigma[1, keep])
    squared = squared_distances(outline_of(after), one.mean[keep] + 2.0 * gain, schur)
    np.testing.assert_allclose(squared, c, rtol=1e-6)
    np.testing.assert_allclose(axes.lines[-1].get_xydata()[0], y[keep])
    assert after.get_label() == f"given {'b' if named else 'target 1'} = {value:.4g}"
    with pytest.raises(ValueError, match="one distribution"):
        plots.conditioning(axes, normal, {1: 0.0}, (2, 0))


def test_intervals_and_what_is_outside(axes, normal):
    y = normal.sample(seed=0)
    y[5, 1] = np.nan
    at = np.arange(200) * 0.5
    plots.intervals(axes, normal, "b", index=at, y=y, levels=(0.5, 0.8))
    mean, inside, outside = axes.lines
    np.testing.assert_array_equal(mean.get_ydata(), normal.mean[:, 1])
    lower, upper = normal.interval(0.8)
    out = (y[:, 1] < lower[:, 1]) | (y[:, 1] > upper[:, 1])
    np.testing.assert_array_equal(outside.get_xdata(), at[out])
    assert len(inside.get_xdata()) == 200 - 1 - out.sum()
    band = axes.collections[0].get_paths()[0].get_extents()
    np.testing.assert_allclose([band.y0, band.y1], [lower[:, 1].min(), upper[:, 1].max()])
    with pytest.raises(ValueError, match="one target"):
        plots.intervals(axes, normal, ["a", "b"])


def test_standardized_residuals(axes, normal):
    y = normal.sample(seed=0)
    plots.standardized_residuals(axes, normal, y, ("a", "c"), level=0.9)
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points, ((y - normal.mean) / normal.stddev)[:, [0, 2]])
    correlation = normal.correlation.mean(axis=0)[np.ix_([0, 2], [0, 2])]
    squared = squared_distances(outline_of(axes.lines[0]), 0.0, correlation)
    np.testing.assert_allclose(squared, scipy.stats.chi2.ppf(0.9, 2), rtol=1e-6)


def test_marginal_curves(axes, normal):
    y = normal.sample(seed=0)
    plots.marginal_calibration(axes, normal, y)
    levels, share = axes.lines[1].get_data()
    lower, upper = normal.interval(0.7)
    inside = ((y >= lower) & (y <= upper))[:, 0].mean()
    assert share[np.argmin(np.abs(levels - 0.7))] == pytest.approx(inside)
    assert [line.get_label() for line in axes.lines[1:]] == ["a", "b", "c"]


def test_pit_histogram(axes, normal):
    y = normal.sample(seed=0)
    plots.pit_histogram(axes, normal, y, bins=5)
    pit = scipy.stats.chi2.cdf(normal.mahalanobis(y) ** 2, 3)
    expected, _ = np.histogram(pit, bins=5, range=(0, 1))
    heights = [bar.get_height() for bar in axes.containers[0]]
    np.testing.assert_allclose(heights, expected / 40)


def test_chi_square_qq(axes, normal):
    y = normal.sample(seed=0)
    plots.chi_square_qq(axes, {"true": normal, "bold": normal.rescale(0.5)}, y)
    expected, observed = axes.lines[0].get_data()
    np.testing.assert_allclose(observed, np.sort(normal.mahalanobis(y) ** 2))
    probabilities = (np.arange(200) + 0.5) / 200
    np.testing.assert_allclose(expected, scipy.stats.chi2.ppf(probabilities, 3), rtol=1e-9)
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 4.0 * observed)
