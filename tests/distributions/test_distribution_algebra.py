"""What one makes of a MultivariateNormal, against dense NumPy, SciPy and Monte Carlo.

Every structure, three rows each with its own covariance, units six decades apart.
"""

import itertools
import sys

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats

from keras_mvn import MultivariateNormal
from structures import STRUCTURES, named

pytestmark = pytest.mark.once

D, ROWS = 4, 3
UNITS = np.array([1e3, 1.0, 1e-3, 10.0])
NAMES = ("a", "b", "c", "d")


def predictions(structure, rng, units=UNITS, d=D, rows=ROWS):
    """Distributions of this structure, away from R = I; unrelated rows."""
    raw = rng.normal(size=(rows, structure.raw_size(d))) * 0.6
    scale, shape_params = structure.constrain(raw, d)
    mean = rng.normal(size=(rows, d))
    packed = np.concatenate([mean * units, scale * units, shape_params], axis=-1)
    return MultivariateNormal.from_prediction(packed, structure, target_names=NAMES[:d])


@pytest.fixture(params=STRUCTURES, ids=named)
def normal(request, rng):
    return predictions(request.param, rng)


@pytest.fixture
def full(rng):
    """One full covariance, for what does not depend on the structure."""
    factor = rng.normal(size=(ROWS, D, D)) + np.eye(D)
    return MultivariateNormal(
        rng.normal(size=(ROWS, D)), covariance=factor @ factor.swapaxes(1, 2), target_names=NAMES
    )


def close(actual, expected, rtol=1e-9):
    """Relative to the largest entry of each row: small entries come of differences."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=0.0)


def in_units(matrix, units):
    return matrix / units[:, None] / units[None, :]


def assert_normal(actual, mean, covariance, units, rtol=1e-9):
    """Same mean and covariance, both in the units given."""
    np.testing.assert_allclose(actual.mean / units, mean / units, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(
        in_units(actual.covariance, units), in_units(covariance, units), rtol=rtol, atol=rtol
    )


def conditional(mean, sigma, index, values, noise):
    """By the textbook formula with an inverse; every target, those measured too."""
    others = sigma[:, index]
    gain = others @ np.linalg.inv(sigma[np.ix_(index, index)] + np.diag(noise))
    return mean + gain @ (values - mean[index]), sigma - gain @ others.T


class TestMarginal:
    @pytest.mark.parametrize("index", [[0], [2, 0], [1, 3, 2], [0, 1], [3, 2, 1, 0]], ids=str)
    def test_is_the_rows_and_columns(self, normal, index):
        marginal = normal.marginal(index)
        expected = normal.covariance[:, index][:, :, index]
        assert_normal(marginal, normal.mean[:, index], expected, UNITS[index])
        assert marginal.target_names == tuple(NAMES[i] for i in index)

    def test_names_slices_and_negative_indices(self, full):
        for targets in (["b", "c", "d"], slice(1, None), (-3, -2, "d"), np.array([1, 2, 3])):
            close(full.marginal(targets).mean, full.mean[:, 1:])
        assert full.marginal("c").event_size == 1

    @pytest.mark.parametrize(
        "targets", [[], ["a", 0], "e", 4, -5, [1.5], [True, False, True, False], slice(4, None)]
    )
    def test_refusals(self, full, targets):
        with pytest.raises(ValueError, match="target"):
            full.marginal(targets)

    def test_a_name_needs_names(self):
        with pytest.raises(ValueError, match="have no names; use indices"):
            MultivariateNormal([0.0], covariance=[[1.0]]).marginal("a")


class TestCondition:
    @pytest.mark.parametrize("index", [[1], [0], [3, 0], [0, 1, 2]], ids=str)
    @pytest.mark.parametrize("noisy", [False, True])
    def test_is_the_textbook_formula(self, normal, index, noisy, rng):
        values = normal.mean[:, index] + rng.normal(size=(ROWS, len(index))) * UNITS[index]
        noise = rng.uniform(0.1, 2.0, size=(ROWS, len(index))) * UNITS[index] ** 2 * noisy
        given = {NAMES[i]: values[:, j] for j, i in enumerate(index)}
        variance = {i: noise[:, j] for j, i in enumerate(index)} if noisy else None
        result = normal.condition(given, variance)
        keep = np.arange(D) if noisy else np.setdiff1d(np.arange(D), index)
        assert result.target_names == tuple(NAMES[i] for i in keep)
        for row in range(ROWS):
            mean, sigma = conditional(
                normal.mean[row], normal.covariance[row], index, values[row], noise[row]
            )
            assert_normal(result[row], mean[keep], sigma[np.ix_(keep, keep)], UNITS[keep])

    def test_exact_and_noisy_at_once(self, normal):
        variance = {"d": 0.5 * UNITS[3] ** 2}
        result = normal.condition({"d": 20.0, "b": 1.5}, variance)
        index, noise = [3, 1], np.array([0.5 * UNITS[3] ** 2, 0.0])
        keep = [0, 2, 3]
        assert result.target_names == ("a", "c", "d")
        for row in range(ROWS):
            values = np.array([20.0, 1.5])
            mean, sigma = conditional(
                normal.mean[row], normal.covariance[row], index, values, noise
            )
            assert_normal(result[row], mean[keep], sigma[np.ix_(keep, keep)], UNITS[keep])

    def test_not_measured_in_some_rows(self, normal):
        variance = np.array([0.1, np.inf, 0.1])
        result = normal.condition({"b": 0.7}, {"b": variance})
        assert_normal(result[1], normal.mean[1], normal.covariance[1], UNITS)
        alone = normal[2].condition({"b": 0.7}, 0.1)
        assert_normal(result[2], alone.mean, alone.covariance, UNITS)

    def test_the_structure_is_kept_where_it_can_be(self, normal):
        kept = any(f"'{name}'" in repr(normal) for name in ("low_rank", "diagonal"))
        for result in (normal.condition({"b": 0.0}), normal.condition({"b": 0.0}, 1.0)):
            assert ("'cholesky'" not in repr(result)) == kept

    def test_bayes(self, full, rng):
        """p(b | a) = p(a, b) / p(a), at arbitrary points."""
        y = rng.normal(size=(ROWS, D))
        result = full.condition({"a": y[:, 0], "c": y[:, 2]})
        joint, given = full.log_prob(y), full.marginal(["a", "c"]).log_prob(y[:, [0, 2]])
        close(result.log_prob(y[:, [1, 3]]), joint - given)

    def test_the_order_of_values_does_not_matter(self, full):
        one = full.condition({"a": 1.0, "d": 2.0}, {"d": 0.3})
        other = full.condition({"d": 2.0, "a": 1.0}, {"d": 0.3})
        close(one.mean, other.mean)
        close(one.covariance, other.covariance)

    def test_one_distribution_many_values(self, full):
        values = np.linspace(-1.0, 1.0, 5)
        result = full[0].condition({"a": values})
        assert result.batch_shape == (5,)
        close(result[3].mean, full[0].condition({"a": values[3]}).mean)

    def test_almost_exact_is_nearly_exact(self, normal):
        """Accuracy: a measurement 1e10 times sharper than the prior."""
        sharp = normal.condition({"b": 2.0}, 1e-20).marginal(["a", "c", "d"])
        exact = normal.condition({"b": 2.0})
        assert_normal(sharp, exact.mean, exact.covariance, UNITS[[0, 2, 3]], rtol=1e-8)

    @pytest.mark.parametrize(
        ("values", "variance", "message"),
        [
            ({}, None, "mapping from target to measured value"),
            ({"e": 1.0}, None, "no target 'e'"),
            ({"a": 1.0, 0: 1.0}, None, "only once"),
            ({"a": np.nan}, None, "values contains NaN or infinite"),
            ({"a": 1.0}, {"b": 1.0}, "no measurement"),
            ({"a": 1.0}, -1.0, "must be ≥ 0"),
            ({"a": 1.0}, {"a": np.nan}, "must be ≥ 0"),
            ({"a": [1.0, 2.0]}, None, "does not fit"),
            ({"a": 1.0}, {"a": [1.0, 0.0, 1.0]}, "0 in some rows"),
            (dict.fromkeys(NAMES, 1.0), None, "nothing is left"),
        ],
    )
    def test_refusals(self, full, values, variance, message):
        with pytest.raises(ValueError, match=message):
            full.condition(values, variance)


class TestUpdate:
    def test_is_the_kalman_filters(self, normal, rng):
        matrix = rng.normal(size=(2, D)) / UNITS
        noise = np.array([[1.0, 0.3], [0.3, 0.5]])
        values = rng.normal(size=(ROWS, 2))
        result = normal.update(values, matrix, covariance=noise)
        for row in range(ROWS):
            sigma, mean = normal.covariance[row], normal.mean[row]
            gain = sigma @ matrix.T @ np.linalg.inv(matrix @ sigma @ matrix.T + noise)
            expected = mean + gain @ (values[row] - matrix @ mean)
            assert_normal(result[row], expected, sigma - gain @ matrix @ sigma, UNITS)

    def test_one_after_another_is_all_at_once(self, normal, rng):
        matrix = rng.normal(size=(2, D)) / UNITS
        together = normal.update([1.0, 2.0], matrix, variance=[0.5, 2.0])
        apart = normal.update([1.0], matrix[0], variance=0.5)
        apart = apart.update([2.0], matrix[1], variance=2.0)
        assert_normal(apart, together.mean, together.covariance, UNITS)

    def test_without_a_matrix_it_is_condition(self, full):
        measured = np.arange(4.0)
        one = full.update(measured, variance=0.5)
        other = full.condition(dict(zip(NAMES, measured, strict=True)), 0.5)
        close(one.mean, other.mean)
        close(one.covariance, other.covariance)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "exactly one of variance and covariance"),
            ({"variance": 1.0, "covariance": np.eye(4)}, "exactly one"),
            ({"variance": 0.0}, "must be positive"),
            ({"variance": [1.0, 1.0]}, "last axes must be"),
            ({"matrix": np.ones((2, 4)), "variance": 1.0}, "4 measurements of 2 functions"),
            ({"matrix": np.ones((4, 3)), "variance": 1.0}, "functions of 4 targets"),
            ({"covariance": -np.eye(4)}, "positive definite"),
        ],
    )
    def test_refusals(self, full, arguments, message):
        with pytest.raises(ValueError, match=message):
            full.update(np.zeros(4), **arguments)

    def test_rows_that_do_not_fit(self, full):
        with pytest.raises(ValueError, match="does not fit"):
            full.update(np.zeros((2, 4)), variance=1.0)


class TestLinearFunctions:
    @pytest.mark.parametrize("m", [1, 2, 4])
    def test_affine(self, normal, m, rng):
        matrix, offset = rng.normal(size=(m, D)) / UNITS, rng.normal(size=m)
        result = normal.affine(matrix, offset, [f"f{i}" for i in range(m)])
        expected = matrix @ normal.covariance @ matrix.T
        assert_normal(result, normal.mean @ matrix.T + offset, expected, np.ones(m))
        assert result.target_names == tuple(f"f{i}" for i in range(m))

    def test_a_matrix_for_each_row(self, full, rng):
        matrix = rng.normal(size=(ROWS, 2, D))
        result = full.affine(matrix)
        close(result.covariance, matrix @ full.covariance @ matrix.swapaxes(1, 2))

    def test_sum_and_difference(self, normal):
        ones = np.ones(D)
        total = normal.sum()
        np.testing.assert_allclose(total.mean[:, 0], normal.mean.sum(axis=1), atol=1e-9)
        close(total.variance[:, 0], ones @ normal.covariance @ ones)
        some = normal.sum(["d", "b"], name="both")
        close(some.variance[:, 0], normal.covariance[:, [1, 3]][:, :, [1, 3]].sum(axis=(1, 2)))
        assert some.target_names == ("both",)
        gap, c = normal.difference("b", "d"), normal.covariance
        close(gap.variance[:, 0], c[:, 1, 1] + c[:, 3, 3] - 2 * c[:, 1, 3])
        assert gap.target_names == ("b - d",)

    def test_dependent_rows_are_refused(self, normal):
        for matrix in ([[1.0, 0, 0, 0], [2.0, 0, 0, 0]], np.ones((5, 4)), np.zeros((1, 4))):
            with pytest.raises(ValueError, match="linearly dependent"):
                normal.affine(matrix)

    def test_units_do_not_make_rows_dependent(self, full):
        result = full.affine([[1e-12, 0.0, 0.0, 0.0], [1e-12, 1e-9, 0.0, 0.0], [0, 0, 1e9, 1e9]])
        correlation = full.affine([[1, 0, 0, 0], [1, 1e3, 0, 0], [0, 0, 1, 1]]).correlation
        close(result.correlation, correlation, rtol=1e-7)

    @pytest.mark.parametrize("matrix", [np.ones(3), np.ones((0, 4)), np.full((1, 4), np.nan)])
    def test_refusals(self, full, matrix):
        with pytest.raises(ValueError, match="matrix"):
            full.affine(matrix)

    def test_constants(self, normal):
        shift, factor = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 0.5, 3.0, 1.0])
        moved = 1.0 + (normal * factor - shift)
        sigma = normal.covariance * factor[:, None] * factor
        assert_normal(moved, normal.mean * factor - shift + 1.0, sigma, UNITS)
        halved = normal / 2.0
        assert_normal(halved, normal.mean / 2.0, 0.25 * normal.covariance, UNITS)
        mirrored = shift - normal * 2.0
        assert_normal(mirrored, shift - 2.0 * normal.mean, 4.0 * normal.covariance, UNITS)
        assert_normal(-normal, -normal.mean, normal.covariance, UNITS)
        left = shift + normal  # NumPy's + must not take over
        assert_normal(left, normal.mean + shift, normal.covariance, UNITS)
        assert left.target_names == NAMES

    def test_constants_that_are_none(self, full):
        with pytest.raises(TypeError, match="joint covariance"):
            full + full
        with pytest.raises(ValueError, match="other than 0"):
            full * 0.0
        with pytest.raises(ValueError, match="other than 0"):
            full * [1.0, -1.0, 1.0, 1.0]
        with pytest.raises(ValueError, match="does not fit"):
            full + np.ones(3)


class TestRegions:
    def test_intervals_of_each_target(self, normal):
        lower, upper = normal.interval(0.8)
        for j in range(D):
            frozen = scipy.stats.norm(normal.mean[:, j], np.sqrt(normal.covariance[:, j, j]))
            close(lower[:, j], frozen.ppf(0.1))
            close(upper[:, j], frozen.ppf(0.9))

    @pytest.mark.parametrize("how", ["bonferroni", "sidak", "exact"])
    def test_simultaneous_intervals(self, normal, how):
        level, n = 0.8, 100_000
        lower, upper = normal.interval(level, how, samples=100_000, seed=1)
        y = normal.sample(n, seed=2)
        inside = ((y >= lower) & (y <= upper)).all(axis=-1).mean(axis=0)
        error = 4.0 * np.sqrt(2 * level * (1 - level) / n)
        assert (inside > level - error).all()
        if how == "exact":
            assert (inside < level + error).all()

    def test_the_kinds_are_ordered(self, full):
        reach = [full.interval(0.9, how)[1] for how in (None, "exact", "sidak", "bonferroni")]
        assert all((a < b).all() for a, b in itertools.pairwise(reach))

    def test_simulation_does_not_depend_on_the_chunks(self, full, monkeypatch):
        whole = full.interval(0.9, "exact", samples=1000)[1]
        monkeypatch.setattr("keras_mvn.distributions.probability.simultaneous._CHUNK", 4 * 1000)
        np.testing.assert_array_equal(full.interval(0.9, "exact", samples=1000)[1], whole)

    def test_unknown_kind(self, full):
        with pytest.raises(ValueError, match="'bonferroni', 'sidak' or 'exact'"):
            full.interval(0.9, "scheffe")

    def test_the_ellipsoid(self, normal, rng):
        region, c = normal.ellipsoid(0.9), scipy.stats.chi2(D).ppf(0.9)
        scaled = (normal * (1.0 / UNITS)).ellipsoid(0.9)
        for row in range(ROWS):
            eigenvalues, vectors = np.linalg.eigh(in_units(normal.covariance[row], UNITS))
            close(scaled.radii[row], np.sqrt(c * eigenvalues[::-1]), rtol=1e-7)
            if (np.diff(eigenvalues) > 1e-6).all():
                overlap = np.abs((scaled.axes[row] * vectors[:, ::-1]).sum(axis=0))
                close(overlap, np.ones(D), rtol=1e-9)
        ball = np.pi ** (D / 2) / scipy.special.gamma(D / 2 + 1)
        close(scaled.volume, ball * scaled.radii.prod(axis=-1), rtol=1e-7)
        close(region.log_volume, scaled.log_volume + np.log(UNITS).sum())
        np.testing.assert_array_equal(region.center, normal.mean)
        y = normal.mean + rng.normal(size=(200, ROWS, D)) * normal.stddev
        squared = scipy_squared_distance(normal, y)
        np.testing.assert_array_equal(region.contains(y), squared <= c)

    def test_points_of_the_surface(self, full):
        """Center ± radius along an axis is on the boundary, and touches the bounds."""
        region = full.ellipsoid(0.5)
        for k in range(D):
            tip = region.center + region.radii[:, k, None] * region.axes[:, :, k]
            close(full.mahalanobis(tip) ** 2, region.squared_radius)
        lower, upper = region.bounds()
        highest = full.covariance[:, :, 0] / full.stddev[:, :1]  # where y₀ is largest
        touch = region.center + np.sqrt(region.squared_radius)[:, None] * highest
        close(touch[:, 0], upper[:, 0])
        close(full.mahalanobis(touch) ** 2, region.squared_radius)
        close(upper - region.center, region.center - lower)

    def test_indexing_and_refusals(self, full):
        region = full.ellipsoid(0.9)
        assert len(region) == ROWS
        close(region[1].radii, region.radii[1])
        from keras_mvn.distributions.regions import Ellipsoid

        for bad in (-1.0, np.nan, [1.0, 2.0]):
            with pytest.raises(ValueError, match="squared_radius"):
                Ellipsoid(full, bad)
        assert Ellipsoid(full, np.inf).contains(full.mean + 1e100).all()


def scipy_squared_distance(normal, y):
    columns = [
        [scipy.spatial.distance.mahalanobis(v, m, p) ** 2 for v in y[:, row]]
        for row, (m, p) in enumerate(
            zip(normal.mean, np.linalg.inv(normal.covariance), strict=True)
        )
    ]
    return np.array(columns).T


class TestProbability:
    def test_margins(self, normal):
        y = normal.mean + normal.stddev * np.array([-1.0, 0.0, 2.0, 8.0])
        frozen = scipy.stats.norm(normal.mean, normal.stddev)
        close(normal.marginal_cdf(y), frozen.cdf(y))
        assert (normal.marginal_cdf(np.full(D, np.inf)) == 1.0).all()
        levels = np.array([0.01, 0.5, 0.9])
        quantiles = normal.quantile(levels)
        assert quantiles.shape == (3, ROWS, D)
        close(quantiles, frozen.ppf(levels[:, None, None]))
        close(normal.quantile(0.3), frozen.ppf(0.3))

    def test_limits_by_target(self, normal):
        upper = normal.mean[:, 1]
        close(normal.probability(upper={1: upper}), np.full(ROWS, 0.5))
        limits = np.full((ROWS, D), np.inf)
        limits[:, 1], limits[:, -1] = upper, 0.3
        expected = normal.probability(upper=limits)
        np.testing.assert_array_equal(normal.probability(upper={1: upper, D - 1: 0.3}), expected)
        with pytest.raises(ValueError, match="no target 'wind'"):
            normal.probability(lower={"wind": 1.0})

    @pytest.mark.slow
    def test_boxes(self, normal):
        lower, upper = normal.mean - 1.2 * normal.stddev, normal.mean + 0.7 * normal.stddev
        lower[0, 1], upper[1, 2] = -np.inf, np.inf
        value, error = normal.probability(lower, upper, return_error=True, samples=2**15)
        n = 1_000_000
        for row in range(ROWS):
            y = normal[row].sample(n, seed=row)
            inside = ((y >= lower[row]) & (y <= upper[row])).all(axis=-1).mean()
            assert abs(value[row] - inside) < 4.5 * np.sqrt(inside * (1 - inside) / n) + error[row]
        assert (error < 2e-3).all()

    def test_against_scipys_integrator(self, full):
        limits = full.mean + np.array([0.3, -0.2, 1.0, 0.1])
        value, error = full.probability(upper=limits, return_error=True, samples=2**15)
        for row in range(ROWS):
            expected = scipy.stats.multivariate_normal.cdf(
                limits[row], full.mean[row], full.covariance[row], abseps=1e-8, maxpts=10**6
            )
            assert abs(value[row] - expected) < 3 * error[row] + 1e-7
            assert abs(full[row].cdf(limits[row]) - expected) < 1e-3

    @pytest.mark.parametrize("d", [1, 2, 3, 5])
    def test_orthants_of_equal_correlation(self, d):
        """P(all below the mean) = 1/(d + 1) for correlation ½."""
        half = MultivariateNormal(np.zeros(d), covariance=0.5 * np.ones((d, d)) + 0.5 * np.eye(d))
        value, error = half.probability(upper=np.zeros(d), return_error=True)
        assert abs(value - 1.0 / (d + 1)) <= 3 * error + 1e-12
        assert error < 1e-3

    def test_many_targets_over_their_factor(self):
        """One common factor, d = 500: a one-dimensional integral, done by SciPy's quadrature."""
        d, load = 500, 0.8
        packed = np.concatenate([np.zeros(d), np.ones(d), np.full(d, load)])
        normal = MultivariateNormal.from_prediction(packed, LOW_RANK_1)
        value, error = normal.probability(upper=np.full(d, 3.0), return_error=True)
        expected, _ = scipy.integrate.quad(
            lambda f: scipy.stats.norm.cdf(3.0 - load * f) ** d * scipy.stats.norm.pdf(f), -9, 9
        )
        assert abs(value - expected) < 3 * error + 1e-6
        assert error < 1e-3 * expected

    @pytest.mark.parametrize("load", [0.5, 3.0, 30.0])
    @pytest.mark.parametrize(("low", "high"), [(-np.inf, 2.0), (-np.inf, -1.0), (-1.0, 1.0)])
    @pytest.mark.slow
    def test_wherever_the_mass_is(self, load, low, high, rng):
        """30 targets of one factor: by the trapezoidal rule, whose nodes miss nothing."""
        loads = load * rng.normal(size=30)
        packed = np.concatenate([np.zeros(30), np.ones(30), loads])
        normal = MultivariateNormal.from_prediction(packed, LOW_RANK_1)
        a, b = low * normal.stddev, high * normal.stddev
        f = np.linspace(-12.0, 12.0, 40_001)[:, None]  # 20 nodes where the steepest factor rises
        cdf = scipy.stats.norm.cdf
        inside = (cdf(b - loads * f) - cdf(a - loads * f)).prod(axis=-1)
        expected = scipy.integrate.trapezoid(inside * scipy.stats.norm.pdf(f[:, 0]), f[:, 0])
        value, error = normal.probability(a, b, return_error=True)
        assert abs(value - expected) <= 3 * error + 1e-5 * expected
        assert error <= 0.02 * expected

    @pytest.mark.parametrize("limits", ["two-sided", "above", "below"])
    @pytest.mark.slow
    def test_targets_that_pull_against_each_other(self, limits, rng):
        """Correlations up to 0.999 of either sign, boxes far out and narrow: down to 1e-250."""
        f = np.linspace(-45.0, 45.0, 200_001)
        log_ndtr = scipy.special.log_ndtr
        ratios = []
        for _ in range(15):
            d = int(rng.integers(3, 13))
            load = rng.choice([-1.0, 1.0], d) * (1.0 - 10.0 ** rng.uniform(-3, -0.01, d))
            center, half = 3.0 * rng.normal(size=d), 10.0 ** rng.uniform(-2, 1, d)
            a = center - half if limits != "below" else np.full(d, -np.inf)
            b = center + half if limits != "above" else np.full(d, np.inf)
            log_density = scipy.stats.norm.logpdf(f) + np.log(f[1] - f[0])
            for low, high, v in zip(a, b, load, strict=True):
                ends = np.array([low - v * f, high - v * f]) / np.sqrt(1.0 - v**2)
                ends = np.where(ends[0] > 0, -ends[::-1], ends)
                top = log_ndtr(ends[1])
                with np.errstate(divide="ignore"):
                    log_density += top + np.log1p(-np.exp(log_ndtr(ends[0]) - top))
            expected = scipy.special.logsumexp(log_density)
            if expected < -575:
                continue
            normal = MultivariateNormal(
                np.zeros(d), covariance=np.outer(load, load) + np.diag(1.0 - load**2)
            )
            value, error = normal.probability(a, b, return_error=True)
            assert error < 0.02 * value
            assert value == pytest.approx(np.exp(expected), rel=0.01)
            ratios.append(abs(value / np.exp(expected) - 1) / max(error / value, 1e-6))
        assert len(ratios) > 5
        assert np.median(ratios) < 1.0  # two standard errors: 0.34 of a normal's
        assert max(ratios) < 4.0

    @pytest.mark.parametrize("load", [10.0, 1e4])
    def test_one_target_is_exact_whatever_its_structure(self, load):
        packed = np.concatenate([np.zeros(2), np.ones(2), np.full(2, load)])
        normal = MultivariateNormal.from_prediction(packed, LOW_RANK_1).marginal(0)
        value, error = normal.probability(upper=-4.0 * normal.stddev, return_error=True)
        assert (value, error) == (pytest.approx(scipy.stats.norm.cdf(-4.0), rel=1e-12), 0.0)

    @pytest.mark.parametrize("gap", [7e-6, 1e-9, 1e-12])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_two_targets_that_are_nearly_one(self, gap, sign):
        """P(both below the mean) = ¼ + arcsin(ρ)/2π."""
        rho = sign * (1.0 - gap)
        lower = [[1.0, 0.0], [rho, np.sqrt(gap * (2.0 - gap))]]
        value = MultivariateNormal([0.0, 0.0], scale_tril=lower).probability(upper=0.0)
        assert value == pytest.approx(0.25 + np.arcsin(rho) / (2.0 * np.pi), abs=1e-10)

    def test_independent_targets_are_exact(self):
        normal = MultivariateNormal.from_prediction(np.r_[np.zeros(3), np.ones(3)], "diagonal")
        value, error = normal.probability(-1.0, [0.0, np.inf, 2.0], return_error=True)
        cdf = scipy.stats.norm.cdf
        close(value, (0.5 - cdf(-1)) * (1 - cdf(-1)) * (cdf(2) - cdf(-1)))
        assert error == 0.0

    def test_tails_keep_their_relative_accuracy(self):
        one = MultivariateNormal([0.0], covariance=[[1.0]])
        close(one.probability(lower=30.0), scipy.stats.norm.sf(30.0))

    def test_empty_boxes_and_the_whole_space(self, full):
        assert (full.probability(lower=1.0, upper=0.0) == 0.0).all()
        close(full.probability(), np.ones(ROWS))

    def test_chunks_change_nothing(self, full, monkeypatch):
        whole = full.probability(upper=1.0)
        monkeypatch.setattr("keras_mvn.distributions.probability._quasi_monte_carlo._CHUNK", 1)
        np.testing.assert_allclose(full.probability(upper=1.0), whole, rtol=1e-12)

    def test_greater(self, normal):
        value = normal.probability_greater("b", "d")
        y = normal.sample(200_000, seed=0)
        share = (y[..., 1] > y[..., 3]).mean(axis=0)
        np.testing.assert_allclose(value, share, atol=0.005)

    @pytest.mark.parametrize("upper", [np.nan, [1.0, 2.0], np.zeros((2, 4))])
    def test_refusals(self, full, upper):
        with pytest.raises(ValueError, match="upper"):
            full.probability(upper=upper)


LOW_RANK_1 = next(s for s in STRUCTURES if s.name == "low_rank").__class__(1)


class TestBetweenDistributions:
    @pytest.fixture(params=STRUCTURES, ids=named)
    def pair(self, request, rng):
        """Of one structure, and that with a full covariance."""
        one = predictions(request.param, rng)
        return one, predictions(request.param, rng), predictions(STRUCTURES[2], rng)

    def test_kl(self, pair):
        for p, q in itertools.permutations(pair, 2):
            for row in range(ROWS):
                close(p.kl_divergence(q)[row], dense_kl(p[row], q[row]), rtol=1e-7)

    def test_kl_is_an_expectation(self, full):
        other = full * 1.1 + 0.2
        y = full.sample(200_000, seed=0)
        ratio = full.log_prob(y) - other.log_prob(y)
        error = 4 * ratio.std(axis=0) / np.sqrt(len(y))
        assert (np.abs(full.kl_divergence(other) - ratio.mean(axis=0)) < error).all()

    def test_wasserstein(self, pair):
        p, q, full = (normal * (1.0 / UNITS) for normal in pair)
        for a, b in ((p, q), (p, full)):
            for row in range(ROWS):
                root = scipy.linalg.sqrtm(a.covariance[row])
                cross = scipy.linalg.sqrtm(root @ b.covariance[row] @ root)
                squared = np.sum((a.mean[row] - b.mean[row]) ** 2) + np.trace(
                    a.covariance[row] + b.covariance[row] - 2 * cross.real
                )
                close(a.wasserstein2(b)[row], np.sqrt(squared), rtol=1e-6)

    def test_wasserstein_to_oneself_is_zero(self, full):
        assert (full.wasserstein2(full) < 1e-13).all()
        close(full.wasserstein2(full + 3.0), np.full(ROWS, 6.0))

    def test_bhattacharyya(self, pair):
        p, q, full = pair
        for a, b in ((p, q), (p, full)):
            for row in range(ROWS):
                scale = np.diag(1.0 / UNITS)
                s1, s2 = (scale @ x.covariance[row] @ scale for x in (a, b))
                r = (a.mean[row] - b.mean[row]) / UNITS
                middle = 0.5 * (s1 + s2)
                determinants = np.linalg.det(middle) / np.sqrt(np.linalg.det(s1 @ s2))
                expected = 0.125 * r @ np.linalg.inv(middle) @ r + 0.5 * np.log(determinants)
                close(a.bhattacharyya(b)[row], expected, rtol=1e-7)
            close(a.bhattacharyya(b), b.bhattacharyya(a), rtol=1e-7)

    def test_mutual_information(self, normal):
        correlation = normal.correlation
        det = np.linalg.det
        a, b = [0, 2], [3]
        both = [0, 2, 3]
        expected = 0.5 * np.log(
            det(correlation[:, a][:, :, a]) / det(correlation[:, both][:, :, both])
        )
        np.testing.assert_allclose(normal.mutual_information(["a", "c"], b), expected, atol=1e-12)

    def test_a_target_in_both_groups(self, full):
        with pytest.raises(ValueError, match="a target in common"):
            full.mutual_information(["a", "b"], "b")

    def test_combine(self, pair):
        for p, q in itertools.combinations(pair, 2):
            result = p.combine(q)
            for row in range(ROWS):
                precision = [np.linalg.inv(in_units(x.covariance[row], UNITS)) for x in (p, q)]
                sigma = np.linalg.inv(precision[0] + precision[1])
                means = [x.mean[row] / UNITS for x in (p, q)]
                mean = sigma @ (precision[0] @ means[0] + precision[1] @ means[1])
                scale = UNITS[:, None] * UNITS
                assert_normal(result[row], mean * UNITS, sigma * scale, UNITS, rtol=1e-7)

    def test_combine_is_the_product_of_the_densities(self, full, rng):
        other = full * 2.0 - 1.0
        y = rng.normal(size=(50, 1, D))
        gap = full.log_prob(y) + other.log_prob(y) - full.combine(other).log_prob(y)
        np.testing.assert_allclose(gap, np.broadcast_to(gap[:1], gap.shape), rtol=1e-9)

    def test_covariance_intersection(self, full, rng):
        other = predictions(STRUCTURES[2], rng, np.ones(4))
        for weight in (0.0, 0.3, 1.0):
            result = full.covariance_intersection(other, weight)
            expected = weight * full.precision + (1 - weight) * other.precision
            np.testing.assert_allclose(result.precision, expected, rtol=1e-7, atol=1e-9)
        best = full.covariance_intersection(other)
        for weight in np.linspace(0, 1, 101):
            trial = full.covariance_intersection(other, weight)
            assert (best.half_log_det <= trial.half_log_det + 1e-9).all()

    def test_intersection_is_safe_for_any_correlation(self):
        """The reported variance covers the true error of the fused mean (Julier & Uhlmann)."""
        p = MultivariateNormal([0.0, 0.0], covariance=np.diag([1.0, 9.0]))
        q = MultivariateNormal([0.0, 0.0], covariance=np.diag([4.0, 1.0]))
        fused = p.covariance_intersection(q)
        a, b = (fused.covariance @ x.precision for x in (p, q))
        weight = (np.linalg.solve(fused.covariance, np.eye(2)) - q.precision)[0, 0] / (
            p.precision - q.precision
        )[0, 0]
        a, b = weight * a, (1 - weight) * b
        for rho in (-0.99, 0.0, 0.99):
            cross = rho * np.sqrt(p.covariance) @ np.sqrt(q.covariance)
            error = a @ p.covariance @ a.T + b @ q.covariance @ b.T
            error = error + a @ cross @ b.T + b @ cross.T @ a.T
            assert np.linalg.eigvalsh(fused.covariance - error).min() > -1e-12

    def test_refusals(self, full):
        with pytest.raises(ValueError, match="4 and 2 targets"):
            full.combine(full.marginal([0, 1]))
        with pytest.raises(ValueError, match="another order"):
            full.kl_divergence(full.marginal(["b", "a", "c", "d"]))
        with pytest.raises(ValueError, match="does not fit"):
            full.bhattacharyya(full[:2])
        with pytest.raises(ValueError, match="between 0 and 1"):
            full.covariance_intersection(full, 1.5)


def dense_kl(p, q):
    scale = np.diag(1.0 / UNITS)
    sp, sq = scale @ p.covariance @ scale, scale @ q.covariance @ scale
    inverse, r = np.linalg.inv(sq), (p.mean - q.mean) / UNITS
    logs = np.linalg.slogdet(sq)[1] - np.linalg.slogdet(sp)[1]
    return 0.5 * (np.trace(inverse @ sp) + r @ inverse @ r - D + logs)


class TestOtherErrors:
    def test_rescale_targets(self, normal):
        factors = np.array([1.0, 2.0, 0.5, 3.0])
        result = normal.rescale_targets(factors)
        assert_normal(result, normal.mean, normal.covariance * factors[:, None] * factors, UNITS)

    def test_transform_errors(self, normal, rng):
        c = np.tril(rng.normal(size=(D, D)), -1) + np.diag([0.5, 1.0, 2.0, 1.5])
        factor = normal.scale_tril @ c
        expected = factor @ factor.swapaxes(1, 2)
        assert_normal(normal.transform_errors(c), normal.mean, expected, UNITS)

    def test_refusals(self, full):
        with pytest.raises(ValueError, match="positive"):
            full.rescale_targets([1.0, 0.0, 1.0, 1.0])
        with pytest.raises(ValueError, match="lower triangular"):
            full.transform_errors(np.ones((4, 4)))


class TestManyTargets:
    """d = 2000, rank 2: nothing of size d × d."""

    D = 2000

    @pytest.fixture
    def large(self, rng):
        structure = LOW_RANK_1.__class__(2)
        shape = rng.normal(size=(8, 2 * self.D))
        scale, mean = np.exp(rng.normal(size=(2, 8, self.D)))
        return MultivariateNormal.from_prediction(
            np.concatenate([mean, scale, shape], axis=-1), structure
        )

    @pytest.fixture
    def _no_dense(self, monkeypatch):
        from keras_mvn.covariances import Covariance, LowRank

        def refuse(*_):
            raise AssertionError("a d × d matrix was formed")

        monkeypatch.setattr(LowRank, "shape_matrix", refuse)
        monkeypatch.setattr(LowRank, "scale_tril", refuse)
        monkeypatch.setattr(LowRank, "whitening_matrix", refuse)
        monkeypatch.setattr(Covariance, "covariance", refuse)

    @pytest.mark.usefixtures("_no_dense")
    def test_everything_that_can_stay_small_does(self, large):
        some = large.marginal(slice(0, 1000))
        rest = some.condition({3: 1.0, 500: 2.0}, {500: 0.1})
        assert rest.event_size == 999
        other = some.rescale(2.0) + 1.0
        for value in (
            some.kl_divergence(other),
            some.bhattacharyya(other),
            some.sum().variance,
            some.difference(0, 1).mean,
            some.mutual_information([0, 1], [2]),
            some.probability(upper=1e3, samples=64),
            some.ellipsoid(0.9).log_volume,
            some.interval(0.9, "sidak")[0],
            some.sample(2, seed=0),
            some.entropy(),
        ):
            assert np.isfinite(value).all()

    def test_conditioning_agrees_with_the_dense_one(self, large):
        index = [5, 1999, 42, 7]
        part = large.marginal([0, 1, *index])
        result = large.condition(dict.fromkeys(index, 1.0)).marginal([0, 1])
        for row in range(3):
            mean, sigma = conditional(
                part.mean[row], part.covariance[row], [2, 3, 4, 5], np.ones(4), np.zeros(4)
            )
            assert_normal(result[row], mean[:2], sigma[:2, :2], np.ones(2), rtol=1e-7)


class TestAccuracy:
    def test_conditioning_loses_the_root_of_the_condition_number(self):
        """κ = 1e12: the Schur complement of Σ has 8 digits left, the factor 14."""
        import mpmath

        rng = np.random.default_rng(0)
        q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
        lower = np.linalg.qr((q * np.geomspace(1.0, 1e-6, 5)).T)[1].T
        lower = lower * np.sign(np.diag(lower))
        normal = MultivariateNormal(np.zeros(5), scale_tril=lower)
        result = normal.condition({4: 1.0, 2: -1.0})
        with mpmath.workdps(60):
            factor = mpmath.matrix(normal.scale_tril.tolist())
            sigma = factor * factor.T
            keep, given = [0, 1, 3], [4, 2]

            def block(rows, columns):
                return mpmath.matrix([[sigma[i, j] for j in columns] for i in rows])

            gain = block(keep, given) * mpmath.inverse(block(given, given))
            mean = gain * mpmath.matrix([1.0, -1.0])
            schur = block(keep, keep) - gain * block(given, keep)
            expected = np.array(schur.tolist(), dtype=float)
            mean = np.array(mean.tolist(), dtype=float)[:, 0]
        np.testing.assert_allclose(result.mean, mean, rtol=1e-11)
        root = np.sqrt(np.diag(expected))
        error = (result.covariance - expected) / root / root[:, None]
        assert np.abs(error).max() < 1e-12


class TestMissing:
    def test_densities_of_what_was_observed(self, normal, rng):
        y = normal.mean + rng.normal(size=(ROWS, D)) * normal.stddev
        y[0, 1] = y[1, [0, 3]] = np.nan
        y[2, :3] = np.nan
        value = normal.log_prob(y, missing="marginalize")
        distance = normal.mahalanobis(y, missing="marginalize")
        for row in range(ROWS):
            seen = np.flatnonzero(~np.isnan(y[row]))
            units = UNITS[seen]
            sigma = in_units(normal.covariance[row][np.ix_(seen, seen)], units)
            r = (y[row, seen] - normal.mean[row, seen]) / units
            density = scipy.stats.multivariate_normal(cov=sigma).logpdf(r) - np.log(units).sum()
            close(value[row], density, rtol=1e-8)
            close(distance[row] ** 2, r @ np.linalg.inv(sigma) @ r, rtol=1e-7)

    def test_nothing_observed(self, full):
        y = np.full((ROWS, D), np.nan)
        np.testing.assert_allclose(full.log_prob(y, "marginalize"), 0.0, atol=1e-14)

    def test_nan_is_refused_unless_it_is_meant(self, full):
        y = np.full((ROWS, D), np.nan)
        with pytest.raises(ValueError, match="missing='marginalize'"):
            full.log_prob(y)
        with pytest.raises(ValueError, match="not known"):
            full.log_prob(y, missing="drop")
        with pytest.raises(ValueError, match="infinite"):
            full.log_prob(y + np.inf * 0 + np.where(np.arange(D) == 0, np.inf, 0), "raise")


class TestElsewhere:
    def test_frame(self, full):
        pandas = pytest.importorskip("pandas")
        index = pandas.date_range("2024-01-01", periods=ROWS)
        frame = full.to_frame(index=index, level=0.9)
        np.testing.assert_array_equal(frame["b_mean"], full.mean[:, 1])
        np.testing.assert_array_equal(frame["b_upper"], full.interval(0.9)[1][:, 1])
        np.testing.assert_array_equal(frame["a_d_correlation"], full.correlation[:, 0, 3])
        assert frame.index.equals(index)
        assert frame.shape == (ROWS, 4 * 4 + 6)
        assert full[0].to_frame().shape == (1, 2 * 4 + 6)

    def test_torch(self, normal):
        torch = pytest.importorskip("torch")
        frozen = normal.to_torch()
        assert frozen.batch_shape == (ROWS,)
        y = normal.mean + 0.3 * normal.stddev
        close(frozen.log_prob(torch.tensor(y)).numpy(), normal.log_prob(y), rtol=1e-8)

    def test_numpyro(self, normal):
        pytest.importorskip("numpyro")
        scaled = normal * (1.0 / UNITS)
        y = scaled.mean + 0.3 * scaled.stddev
        value = np.asarray(scaled.to_numpyro().log_prob(y))
        np.testing.assert_allclose(value, scaled.log_prob(y), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("suffix", [".npz", ".parquet"])
    def test_files(self, normal, suffix, tmp_path):
        if suffix == ".parquet":
            pytest.importorskip("pyarrow")
        path = tmp_path / f"normal{suffix}"
        path.write_bytes(b"something older")
        normal.save(path)
        loaded = MultivariateNormal.load(str(path))
        assert repr(loaded) == repr(normal)
        np.testing.assert_array_equal(loaded.mean, normal.mean)
        np.testing.assert_array_equal(loaded.covariance, normal.covariance)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        beside = tmp_path / "beside"
        beside.touch()  # with the permissions that the umask gives
        assert path.stat().st_mode == beside.stat().st_mode

    def test_one_without_batch_and_names(self, tmp_path):
        one = MultivariateNormal([1.0, 2.0], covariance=np.eye(2))
        one.save(tmp_path / "one.npz")
        loaded = MultivariateNormal.load(tmp_path / "one.npz")
        assert loaded.batch_shape == ()
        assert loaded.target_names is None
        with pytest.raises(ValueError, match="Use .npz"):
            one.save(tmp_path / "one.parquet")

    def test_a_failure_loses_nothing(self, full, tmp_path, monkeypatch):
        path = tmp_path / "normal.npz"
        full.save(path)
        before = path.read_bytes()

        def broken(*_, **__):
            raise OSError("disk full")

        monkeypatch.setattr(np, "savez_compressed", broken)
        with pytest.raises(OSError, match="disk full"):
            full[:1].save(path)
        assert path.read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1

    def test_files_of_others(self, tmp_path, full):
        np.savez(tmp_path / "other.npz", a=1)
        with pytest.raises(ValueError, match="was not written by"):
            MultivariateNormal.load(tmp_path / "other.npz")
        with pytest.raises(ValueError, match="suffix '.csv'"):
            full.save(tmp_path / "normal.csv")

    def test_what_is_not_installed_is_named(self, full, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match=r'to_frame needs pandas: pip install "keras-mvn'):
            full.to_frame()
