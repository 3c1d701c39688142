"""Every question asked of every answer, against quadrature of its density in the plane.

The densities themselves are checked against SciPy and mpmath in test_student_t.py and the tests of
the other classes; here, whatever follows from a density must agree with it.
"""

import numpy as np
import pytest
import scipy.interpolate

from answers import ANSWERS, NAMES, Plane, student
from keras_mvn.distributions import Distribution, TransformedDistribution

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", params=list(ANSWERS))
def case(request):
    answer = ANSWERS[request.param]
    return answer, Plane(answer)


def _below_domain(answer):
    return isinstance(answer, TransformedDistribution) and answer.transform.lowest == 0.0


def test_the_density_has_mass_one(case):
    _, plane = case
    assert plane.mass.sum() == pytest.approx(1.0, abs=2e-3)


def test_moments(case):
    answer, plane = case
    mean = plane.mean_of(plane.y)
    np.testing.assert_allclose(answer.mean, mean, rtol=4e-3, atol=2e-3)
    gap = plane.y - mean
    second = plane.mean_of(gap[..., :, None] * gap[..., None, :]).reshape(2, 2)
    np.testing.assert_allclose(answer.covariance, second, rtol=0.02, atol=4e-3)
    np.testing.assert_allclose(answer.variance, np.diag(answer.covariance), rtol=1e-9)
    np.testing.assert_allclose(answer.stddev**2, answer.variance, rtol=1e-12)
    outer = answer.stddev[:, None] * answer.stddev
    np.testing.assert_allclose(answer.correlation, answer.covariance / outer, rtol=1e-9)
    moments = answer.moments()
    np.testing.assert_allclose(moments.mean, answer.mean, rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, answer.covariance, rtol=1e-9, atol=1e-14)


def test_marginals(case):
    answer, plane = case
    for j, name in enumerate(NAMES):
        density = (plane.density * np.expand_dims(plane.widths[1 - j], j)).sum(axis=1 - j)
        some = slice(250, 450, 20)
        y = plane.axes[j][some, None]
        if _below_domain(answer):
            keep = y[:, 0] > 0
            y, some = y[keep], np.arange(250, 450, 20)[keep]
        found = np.exp(answer.marginal(name).log_prob(y))
        np.testing.assert_allclose(found, density[some], rtol=5e-3, atol=1e-3)
        full = np.repeat(y, 2, axis=1)
        np.testing.assert_allclose(
            answer.marginal_log_prob(full)[:, j], answer.marginal(name).log_prob(y), rtol=1e-9
        )
        holes = np.where(np.arange(2) == j, full, np.nan)
        np.testing.assert_allclose(
            answer.log_prob(holes, "marginalize"), answer.marginal(name).log_prob(y), rtol=1e-9
        )


def test_distribution_functions_and_quantiles(case):
    answer, plane = case
    levels = np.array([0.02, 0.3, 0.5, 0.9, 0.99])
    found = answer.quantile(levels)
    for j in range(2):
        margin = plane.mass.sum(axis=1 - j)
        middle = plane.axes[j] + 0.5 * np.append(np.diff(plane.axes[j]), 0.0)
        cdf = scipy.interpolate.interp1d(middle, np.cumsum(margin))
        np.testing.assert_allclose(cdf(found[:, j]), levels, atol=5e-3)
    np.testing.assert_allclose(answer.marginal_cdf(found), levels[:, None] * np.ones(2), rtol=1e-9)
    lower, upper = answer.interval(0.8)
    np.testing.assert_allclose([lower, upper], answer.quantile([0.1, 0.9]), rtol=1e-9)


def test_probabilities(case):
    answer, plane = case
    lower, upper = answer.quantile([0.2, 0.7])
    inside = ((plane.y >= lower) & (plane.y <= upper)).all(axis=-1)
    value, error = answer.probability(lower, upper, return_error=True)
    assert value == pytest.approx(plane.mass[inside].sum(), abs=0.01 + 2 * error)
    below = (plane.y <= upper).all(axis=-1)
    assert answer.cdf(upper) == pytest.approx(plane.mass[below].sum(), abs=0.01)
    one_sided = answer.probability(upper={"a": upper[0]})
    assert one_sided == pytest.approx(0.7, abs=1e-3)
    greater = plane.mass[plane.y[..., 0] > plane.y[..., 1]].sum()
    assert answer.probability_greater("a", "b") == pytest.approx(greater, abs=0.012)


def test_regions(case):
    answer, plane = case
    inside_domain = np.isfinite(plane.log_density)
    y = plane.y[inside_domain]
    region = answer.region(0.8)
    inside = region.contains(y)
    assert plane.mass[inside_domain][inside].sum() == pytest.approx(0.8, abs=0.03)
    area = np.multiply.outer(*plane.widths)[inside_domain][inside].sum()
    assert np.exp(region.log_volume) == pytest.approx(area, rel=0.06)
    assert region.volume == pytest.approx(np.exp(region.log_volume))
    some = y[:: len(y) // 400]
    near = np.abs(answer.region_level(some) - 0.8) > 0.05  # not on the border
    np.testing.assert_array_equal(
        region.contains(some)[near], (answer.region_level(some) < 0.8)[near]
    )
    assert answer.region_level([np.nan, np.nan], "marginalize") == 0.0
    outline = np.concatenate(region.outline(), axis=1).T
    np.testing.assert_allclose(answer.region_level(outline[::20]), 0.8, atol=0.06)


def test_entropy(case):
    answer, plane = case
    log_density = np.where(plane.mass > 0, plane.log_density, 0.0)
    value, error = answer.entropy(return_error=True)
    assert value == pytest.approx(-(plane.mass * log_density).sum(), abs=0.02 + 2 * error)
    assert error < 0.2


def test_divergence(case):
    answer, plane = case
    other = student(7.0, (1.5, 1.5))
    log_ratio = np.where(plane.mass > 0, plane.log_density - other.log_prob(plane.y), 0.0)
    value, error = answer.kl_divergence(other, return_error=True)
    assert value == pytest.approx((plane.mass * log_ratio).sum(), abs=0.02 + 2 * error)


def test_draws(case):
    answer, _ = case
    draws = answer.sample(20_000, seed=3)
    levels = np.sort(answer.marginal_cdf(draws), axis=0)
    uniform = (np.arange(20_000) + 0.5) / 20_000
    assert np.abs(levels - uniform[:, None]).max() < 0.0138  # Kolmogorov–Smirnov, p = 0.001
    joint = np.sort(answer.region_level(draws[:2000]))
    assert np.abs(joint - (np.arange(2000) + 0.5) / 2000).max() < 0.05
    assert answer.sample(seed=1).shape == (2,)
    np.testing.assert_array_equal(answer.sample(3, seed=5), answer.sample(3, seed=5))


def test_conditioning(case):
    """p(b | a) = p(a, b)/p(a), with both sides from different code."""
    answer, plane = case
    a = answer.quantile(0.85)[0]
    given = answer.condition({"a": a})
    assert given.target_names == ("b",)
    y = answer.quantile([0.1, 0.4, 0.8])
    full = np.stack([np.full(3, a), y[:, 1]], axis=-1)
    expected = answer.log_prob(full) - answer.marginal("a").log_prob([[a]] * 3)
    np.testing.assert_allclose(given.log_prob(y[:, 1:]), expected, rtol=1e-6, atol=1e-9)
    i = np.abs(plane.axes[0] - a).argmin()
    near = answer.condition({"a": plane.axes[0][i]})
    weights = plane.density[i] * plane.widths[1]
    assert near.mean[0] == pytest.approx((weights * plane.axes[1]).sum() / weights.sum(), rel=5e-3)


def test_conditioning_on_noisy_measurements(case):
    """p(y | m) ∝ p(y) N(m; a, T)."""
    answer, plane = case
    measured, variance = answer.quantile(0.8)[0], 0.09
    if isinstance(answer, TransformedDistribution):
        with pytest.raises(ValueError, match="exact measurements only"):
            answer.condition({"a": measured}, variance=variance)
        return
    given = answer.condition({"a": measured}, variance=variance)
    assert given.target_names == ("a", "b")
    weights = plane.mass * np.exp(-0.5 * (plane.y[..., 0] - measured) ** 2 / variance)
    weights = weights / weights.sum()
    mean = (weights[..., None] * plane.y).sum(axis=(0, 1))
    np.testing.assert_allclose(given.mean, mean, rtol=2e-3, atol=1e-3)
    spread = (weights[..., None] * (plane.y - mean) ** 2).sum(axis=(0, 1))
    np.testing.assert_allclose(given.variance, spread, rtol=1e-2, atol=1e-3)
    nothing = answer.condition({"a": 0.0}, variance=np.inf)
    y = answer.quantile([0.2, 0.6])
    np.testing.assert_allclose(nothing.log_prob(y), answer.log_prob(y), rtol=1e-6)


def test_linear_functions(case):
    answer, plane = case
    if isinstance(answer, TransformedDistribution):
        for ask in (lambda: answer.affine([1.0, 1.0]), answer.sum):
            with pytest.raises(ValueError, match="no closed form"):
                ask()
    else:
        total = answer.affine([2.0, -1.0], 3.0, ["t"])
        assert total.target_names == ("t",)
        at = total.quantile(0.75)
        below = plane.mass[(plane.y @ [2.0, -1.0] + 3.0) <= at].sum()
        assert below == pytest.approx(0.75, abs=0.01)
        assert answer.sum().mean[0] == pytest.approx(answer.mean.sum())
        assert answer.difference("a", "b").mean[0] == pytest.approx(-np.diff(answer.mean)[0])
    moved = answer * [2.0, 3.0] + [1.0, -1.0]
    y = answer.quantile([0.3, 0.6])
    np.testing.assert_allclose(
        moved.log_prob(y * [2.0, 3.0] + [1.0, -1.0]), answer.log_prob(y) - np.log(6.0), rtol=1e-9
    )
    np.testing.assert_allclose(
        (-answer).marginal_cdf(-y), 1.0 - answer.marginal_cdf(y), rtol=1e-9, atol=1e-12
    )


def test_simultaneous_intervals(case):
    answer, _ = case
    draws = answer.sample(20_000, seed=11)
    lower, upper = answer.interval(0.9, "exact")
    inside = ((draws >= lower) & (draws <= upper)).all(axis=-1).mean()
    assert inside == pytest.approx(0.9, abs=0.012)
    lower, upper = answer.interval(0.9, "bonferroni")
    assert ((draws >= lower) & (draws <= upper)).all(axis=-1).mean() > 0.89
    with pytest.raises(ValueError, match="is not known"):
        answer.interval(0.9, "some")


def test_batches_files_and_frames(case, tmp_path):
    answer, _ = case
    batch = answer.broadcast_to((3,)) + np.zeros(2)
    assert batch.batch_shape == (3,)
    assert len(batch[1:]) == 2
    assert batch[0].batch_shape == ()
    y = answer.quantile(0.6)
    joined = type(batch).concatenate([batch, batch[:2]])
    np.testing.assert_allclose(joined.log_prob(y), np.full(5, answer.log_prob(y)), rtol=1e-9)
    assert batch.flatten().batch_shape == (3,)
    assert answer.flatten().batch_shape == (1,)
    renamed = answer.with_names(["c", "d"])
    assert renamed.target_names == ("c", "d")
    assert list(answer.to_frame(level=0.5).columns)[:4] == [
        "a_mean", "a_stddev", "a_lower", "a_upper"
    ]  # fmt: skip
    assert repr(answer).startswith(type(answer).__name__)
    path = tmp_path / "answer.npz"
    if isinstance(answer, TransformedDistribution):
        with pytest.raises(ValueError, match=r"Save `\.base`"):
            answer.save(path)
        return
    batch.save(path)
    for loaded in (Distribution.load(path), type(batch).load(path)):
        assert type(loaded) is type(batch)
        assert loaded.target_names == batch.target_names
        np.testing.assert_array_equal(loaded.log_prob(y), batch.log_prob(y))
