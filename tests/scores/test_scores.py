"""Scores against SciPy, Monte Carlo, `scoringrules` and definitions; the table against scores."""

import json
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from keras_mvn import MultivariateNormal, scores
from keras_mvn.covariances import Diagonal, LowRank
from keras_mvn.distributions._gaussian import Gaussian
from keras_mvn.scores import _estimates, _observations
from structures import STRUCTURES, named

pytestmark = pytest.mark.once

D, ROWS, NAN = 4, 5, float("nan")
UNITS = np.array([1.0, 10.0, 0.1, 3.0])
NAMES = ("a", "b", "c", "d")
LIMIT = 4.5  # standard errors


def predictions(structure, rng, d=D, rows=ROWS, units=UNITS):
    """Distributions of this structure, each row its own."""
    raw = 0.6 * rng.normal(size=(rows, structure.raw_size(d)))
    scale, shape_params = structure.constrain(raw, d)
    mean = rng.normal(size=(rows, d))
    packed = np.concatenate([mean * units, scale * units, shape_params], axis=-1)
    return MultivariateNormal.from_prediction(
        packed, structure, target_names=NAMES if d == D else None
    )


@pytest.fixture(params=STRUCTURES, ids=named)
def normal(request, rng):
    return predictions(request.param, rng)


@pytest.fixture
def y(normal):
    """Near and far: twice the predicted spread."""
    return normal.mean + 2.0 * (normal.sample(seed=5) - normal.mean)


@pytest.fixture
def full(rng):
    """One full covariance of three targets of different units."""
    factor = rng.normal(size=(3, 3)) + np.eye(3)
    scale = np.array([1.0, 5.0, 0.2])
    sigma = scale[:, None] * (factor @ factor.T) * scale
    return MultivariateNormal(scale * [1.0, -1.0, 2.0], covariance=sigma, target_names=list("uvw"))


def rows_of(normal, y):
    return zip(normal.mean, normal.covariance, y, strict=True)


def draws(mean, sigma, n=1_000_000, seed=3):
    z = np.random.default_rng(seed).standard_normal((n, len(mean)))
    return mean + z @ np.linalg.cholesky(sigma).T


EVERY = [
    scores.log_score,
    scores.dawid_sebastiani,
    scores.energy_score,
    scores.variogram_score,
    scores.crps,
    scores.interval_score,
    scores.conditional_error,
]
JOINT, PER_TARGET = EVERY[:4], EVERY[4:]


def called(function):
    return function.__name__


class TestDensity:
    def test_log_score_is_scipys(self, normal, y):
        expected = [
            -scipy.stats.multivariate_normal(m, s).logpdf(v) for m, s, v in rows_of(normal, y)
        ]
        np.testing.assert_allclose(scores.log_score(normal, y), expected, rtol=1e-9)

    def test_dawid_sebastiani_by_dense_algebra(self, normal, y):
        expected = [
            np.linalg.slogdet(s)[1] + (v - m) @ np.linalg.inv(s) @ (v - m)
            for m, s, v in rows_of(normal, y)
        ]
        np.testing.assert_allclose(scores.dawid_sebastiani(normal, y), expected, rtol=1e-8)


def mean_norm(sigma, m):
    """E ‖X + m‖: the trapezoidal rule over log t, where the integrand is analytic and dies off."""
    step = 0.1
    t = np.exp(np.arange(-60.0, 90.0, step)) / (np.trace(sigma) + m @ m)
    matrices = np.eye(len(m)) + 2.0 * t[:, None, None] * sigma
    log_det = np.log1p(2.0 * np.outer(t, np.linalg.eigvalsh(sigma))).sum(axis=1)
    quadratic = np.linalg.solve(matrices, np.tile(m[:, None], (len(t), 1, 1)))[..., 0] @ m
    return step * (-np.expm1(-0.5 * log_det - t * quadratic) / np.sqrt(4.0 * np.pi * t)).sum()


def exact_energy_score(mean, sigma, y):
    return mean_norm(sigma, mean - y) - 0.5 * mean_norm(2.0 * sigma, 0.0 * mean)


class TestEnergyScore:
    def test_is_the_integral(self, normal, y):
        expected = [exact_energy_score(*row) for row in rows_of(normal, y)]
        np.testing.assert_allclose(scores.energy_score(normal, y), expected, rtol=1e-8)

    @pytest.mark.parametrize("structure", STRUCTURES[2::4], ids=named)
    def test_is_the_expectation(self, structure, rng):
        normal = predictions(structure, rng, rows=1)
        y = normal.sample(seed=1)
        x = draws(normal.mean[0], normal.covariance[0]).reshape(2, -1, D)
        to_y = np.linalg.norm(x - y[0], axis=-1).mean(axis=0)
        sample = to_y - 0.5 * np.linalg.norm(x[0] - x[1], axis=-1)
        error = sample.std() / np.sqrt(len(sample))
        assert abs(scores.energy_score(normal, y)[0] - sample.mean()) < LIMIT * error
        assert error < 2e-3 * sample.mean()

    def test_is_that_of_large_ensembles(self, full):
        rules = pytest.importorskip("scoringrules")
        y = full.sample(seed=1)
        members = full.sample(40 * 200, seed=2).reshape(40, 200, 3)
        found = rules.es_ensemble(np.tile(y, (40, 1)), members, estimator="fair", backend="numpy")
        error = found.std() / np.sqrt(len(found))
        assert abs(scores.energy_score(full, y) - found.mean()) < LIMIT * error

    def test_of_one_target_is_the_crps(self, rng):
        normal = MultivariateNormal(
            rng.normal(size=(50, 1)), covariance=rng.uniform(0.01, 9, (50, 1, 1))
        )
        y = 10.0 * rng.normal(size=(50, 1))
        np.testing.assert_allclose(
            scores.energy_score(normal, y), scores.crps(normal, y)[:, 0], rtol=1e-9
        )

    @pytest.mark.parametrize(
        ("far", "rtol"), [(0.0, 1e-11), (1.0, 1e-11), (30.0, 2e-10), (1e3, 5e-9), (1e6, 2e-7)]
    )
    @pytest.mark.parametrize("d", [1, 3, 50])
    def test_of_spheres_near_and_far(self, d, far, rtol):
        """E ‖X‖ of a noncentral chi variable, in closed form."""
        normal = MultivariateNormal(np.zeros(d), covariance=np.eye(d))
        y = np.full(d, far / np.sqrt(d))
        half = np.sqrt(2.0) * np.exp(
            scipy.special.gammaln(0.5 * (d + 1)) - scipy.special.gammaln(d / 2)
        )
        expected = half * (scipy.special.hyp1f1(-0.5, d / 2, -0.5 * far**2) - np.sqrt(0.5))
        np.testing.assert_allclose(scores.energy_score(normal, y), expected, rtol=rtol)

    @pytest.mark.parametrize("condition", [1e4, 1e8, 1e12])
    def test_ill_conditioned(self, condition, rng):
        q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        sigma = q @ np.diag([1.0, condition**-0.5, 1.0 / condition]) @ q.T
        normal = MultivariateNormal(np.zeros(3), covariance=0.5 * (sigma + sigma.T))
        y = normal.sample(seed=0)
        expected = exact_energy_score(np.zeros(3), sigma, y)
        np.testing.assert_allclose(scores.energy_score(normal, y), expected, rtol=1e-8)

    @pytest.mark.parametrize("structure", [Diagonal(), LowRank(1), LowRank(3)], ids=named)
    def test_factors_of_many_targets(self, structure, rng, monkeypatch):
        normal = predictions(structure, rng, d=40, rows=3, units=np.geomspace(0.1, 10, 40))
        y = normal.sample(seed=1)
        y[1] = normal.mean[1] + 50.0 * normal.stddev[1]
        expected = [exact_energy_score(*row) for row in rows_of(normal, y)]
        dense = MultivariateNormal(normal.mean, covariance=normal.covariance)
        np.testing.assert_allclose(scores.energy_score(dense, y), expected, rtol=1e-8)
        monkeypatch.setattr(Gaussian, "covariance", None)  # not needed
        np.testing.assert_allclose(scores.energy_score(normal, y), expected, rtol=1e-8)

    def test_strong_factors_cancel_nothing(self, rng):
        """Common variance 10¹⁰ times the targets' own, y along and across it."""
        normal = predictions(LowRank(1), rng, d=16, rows=2, units=np.ones(16))
        packed = np.concatenate(
            [normal.mean, np.full((2, 16), 1e-5), np.full((2, 16), 1e5)], axis=1
        )
        normal = MultivariateNormal.from_prediction(packed, LowRank(1))
        y = normal.mean + np.array([np.ones(16), np.tile([1.0, -1.0], 8)])
        m = np.linalg.norm(y - normal.mean, axis=1)
        s = 4.0  # Σ is 16 times 1 along (1, …, 1)/4, and nothing across
        along = scores.crps(MultivariateNormal([0.0], covariance=[[s * s]]), [m[0]])[0]
        gap = scipy.integrate.quad(
            lambda z: np.hypot(s * z, m[1]) * scipy.stats.norm.pdf(z), -12, 12, epsrel=1e-11
        )[0]
        expected = [along, gap - s / np.sqrt(np.pi)]
        np.testing.assert_allclose(scores.energy_score(normal, y), expected, rtol=1e-8)

    def test_two_thousand_targets(self, rng, monkeypatch):
        normal = predictions(LowRank(3), rng, d=2000, rows=1, units=np.ones(2000))
        sample = normal.sample(3000, seed=1)[:, 0]
        y = normal.sample(seed=2)
        monkeypatch.setattr(Gaussian, "covariance", None)
        pairs = sample.reshape(2, -1, 2000)
        values = np.linalg.norm(pairs - y, axis=-1).mean(axis=0)
        values -= 0.5 * np.linalg.norm(pairs[0] - pairs[1], axis=-1)
        error = values.std() / np.sqrt(len(values))
        assert abs(scores.energy_score(normal, y)[0] - values.mean()) < LIMIT * error
        assert error < 0.01 * values.mean()


def integral(function, low, high):
    return scipy.integrate.quad(function, low, high, epsrel=1e-11)[0]


def absolute_moment(m, s, p):
    """E |m + s z|^p, by SciPy's integrator."""
    value = scipy.integrate.quad(
        lambda z: abs(m + s * z) ** p * math.exp(-0.5 * z * z),
        -15,
        15,
        points=[min(max(-m / s, -15.0), 15.0)],
        epsabs=1e-10,
        limit=500,
    )
    return value[0] / math.sqrt(2.0 * math.pi)


class TestVariogramScore:
    @pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
    def test_is_its_definition(self, normal, y, p):
        weights = np.arange(16.0).reshape(D, D)
        weights = weights + weights.T
        expected = np.zeros((2, ROWS))
        for n, (m, s, v) in enumerate(rows_of(normal, y)):
            for i in range(D):
                for j in range(i):
                    spread = np.sqrt(s[i, i] + s[j, j] - 2.0 * s[i, j])
                    gap = abs(v[i] - v[j]) ** p - absolute_moment(m[i] - m[j], spread, p)
                    expected[:, n] += np.array([1.0, weights[i, j]]) * gap**2
        np.testing.assert_allclose(scores.variogram_score(normal, y, p), expected[0], rtol=1e-7)
        np.testing.assert_allclose(
            scores.variogram_score(normal, y, p, weights=weights), expected[1], rtol=1e-7
        )

    def test_is_that_of_draws(self, full):
        y = full.sample(seed=1)
        i, j = np.tril_indices(3, -1)
        x = draws(full.mean, full.covariance)
        moments = np.abs(x[:, i] - x[:, j]) ** 0.5
        gap = np.abs(y[i] - y[j]) ** 0.5 - moments.mean(axis=0)
        influence = 2.0 * (moments - moments.mean(axis=0)) @ gap
        error = influence.std() / np.sqrt(len(x))
        assert abs(scores.variogram_score(full, y) - (gap**2).sum()) < LIMIT * error
        assert error < 0.01 * (gap**2).sum()

    def test_is_that_of_a_large_ensemble(self, full):
        rules = pytest.importorskip("scoringrules")
        y = full.sample(seed=1)
        weights = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5], [2.0, 0.5, 0.0]])
        members = full.sample(40 * 20_000, seed=2).reshape(40, 20_000, 3)
        found = rules.vs_ensemble(  # its bias, 1/members, is far below its standard error
            np.tile(y, (40, 1)), members, np.tile(weights, (40, 1, 1)), p=0.5, backend="numpy"
        )
        error = found.std() / np.sqrt(len(found))
        ours = 2.0 * scores.variogram_score(full, y, weights=weights)  # theirs: i, j and j, i
        assert abs(ours - found.mean()) < LIMIT * error

    def test_a_gap_far_beyond_the_spread(self):
        normal = MultivariateNormal([1e4, -1e4], covariance=np.eye(2))
        expected = (math.sqrt(2e4) - 1.0) ** 2
        assert scores.variogram_score(normal, [1.0, 0.0]) == pytest.approx(expected, rel=1e-8)

    @pytest.mark.parametrize("kind", ["factors", "triangle"])
    def test_twin_targets(self, kind):
        """What they differ by is 10⁻⁹ of what they have in common."""
        if kind == "factors":
            packed = [0.0, 0.0, 1.0, 1.0, 1e9, 1e9]
            normal, s = MultivariateNormal.from_prediction(packed, LowRank(1)), math.sqrt(2.0)
        else:
            tril = [[1e9, 0.0], [1e9, 1.0]]
            normal, s = MultivariateNormal([0.0, 0.0], scale_tril=tril), 1.0
        expected = (2.0 - absolute_moment(0.0, s, 0.5)) ** 2
        assert scores.variogram_score(normal, [4.0, 0.0]) == pytest.approx(expected, rel=1e-7)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"p": 0.0}, "p=0.0"),
            ({"p": 2.1}, "p=2.1"),
            ({"p": "x"}, "p='x'"),
            ({"weights": np.ones((2, 2))}, r"\(2, 2\)"),
            ({"weights": [[0, 1, 1], [2, 0, 1], [1, 1, 0]]}, "symmetric"),
            ({"weights": -np.ones((3, 3))}, "not negative"),
        ],
    )
    def test_refuses(self, full, arguments, message):
        with pytest.raises(ValueError, match=message):
            scores.variogram_score(full, full.mean, **arguments)


class TestMargins:
    def test_crps_is_its_integral(self, full):
        y = full.sample(4, seed=1)
        found = scores.crps(full, y)
        for j, (m, s) in enumerate(zip(full.mean, full.stddev, strict=True)):
            margin = scipy.stats.norm(m, s)
            for row, v in enumerate(y[:, j]):
                below = integral(lambda x, cdf=margin.cdf: cdf(x) ** 2, m - 12 * s, v)
                above = integral(lambda x, sf=margin.sf: sf(x) ** 2, v, m + 12 * s)
                np.testing.assert_allclose(found[row, j], below + above, rtol=1e-8)

    def test_are_those_of_scoringrules(self, normal, y):
        rules = pytest.importorskip("scoringrules")
        np.testing.assert_allclose(
            scores.crps(normal, y), rules.crps_normal(y, normal.mean, normal.stddev), rtol=1e-9
        )
        low, high = (scipy.stats.norm.ppf(q, normal.mean, normal.stddev) for q in (0.1, 0.9))
        np.testing.assert_allclose(
            scores.interval_score(normal, y, 0.8),
            rules.interval_score(y, low, high, 0.2),
            rtol=1e-9,
        )


class TestConditionalError:
    def test_is_the_residual_given_all_others(self, normal, y):
        found = scores.conditional_error(normal, y)
        for i in range(D):
            given = normal.condition({j: y[:, j] for j in range(D) if j != i})
            expected = np.abs(y[:, i] - given.mean[:, 0])
            np.testing.assert_allclose(found[:, i], expected, rtol=1e-8, atol=1e-9 * UNITS[i])

    def test_of_one_target_is_the_absolute_error(self):
        normal = MultivariateNormal([1.0], covariance=[[4.0]])
        np.testing.assert_array_equal(scores.conditional_error(normal, [-2.0]), [3.0])

    def test_many_targets_of_few_factors(self, rng, monkeypatch):
        normal = predictions(LowRank(2), rng, d=50, rows=2, units=np.ones(50))
        y = normal.sample(seed=0)
        precision = np.linalg.inv(normal.covariance)
        along = (precision @ (y - normal.mean)[..., None])[..., 0]
        expected = np.abs(along / np.diagonal(precision, axis1=1, axis2=2))
        monkeypatch.setattr(Gaussian, "covariance", None)
        monkeypatch.setattr(Gaussian, "lower", None)
        np.testing.assert_allclose(scores.conditional_error(normal, y), expected, rtol=1e-9)


class TestMissing:
    """A score with gaps is that of the marginal distribution of what was observed."""

    MASKS = ([0, 1, 2, 3], [1, 3], [2], [0, 2, 3], [3, 0])

    @pytest.fixture
    def gappy(self, y):
        for row, observed in enumerate(self.MASKS):
            y[row, np.setdiff1d(np.arange(D), observed)] = NAN
        return y

    @pytest.mark.parametrize("function", JOINT, ids=called)
    def test_joint(self, function, normal, gappy):
        found = function(normal, gappy, missing="marginalize")
        for row, observed in enumerate(self.MASKS):
            alone = function(normal[row].marginal(observed), gappy[row, observed])
            np.testing.assert_allclose(found[row], alone, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("function", PER_TARGET, ids=called)
    def test_per_target(self, function, normal, gappy):
        found = function(normal, gappy, missing="marginalize")
        np.testing.assert_array_equal(np.isnan(found), np.isnan(gappy))
        for row, observed in enumerate(self.MASKS):
            alone = function(normal[row].marginal(observed), gappy[row, observed])
            np.testing.assert_allclose(found[row, observed], alone, rtol=1e-8, atol=1e-10)

    def test_factors_of_many_targets(self, rng):
        normal = predictions(LowRank(1), rng, d=30, rows=2, units=np.ones(30))
        y = normal.sample(seed=0)
        y[:, ::3] = NAN
        seen = np.flatnonzero(~np.isnan(y[0]))
        for function in EVERY:
            found = function(normal, y, missing="marginalize")
            found = found[:, seen] if found.ndim > 1 else found
            np.testing.assert_allclose(
                found, function(normal.marginal(seen), y[:, seen]), rtol=1e-8
            )

    @pytest.mark.parametrize("function", EVERY, ids=called)
    def test_nothing_observed(self, function, normal):
        found = function(normal, np.full((ROWS, D), NAN), missing="marginalize")
        expected = np.zeros(ROWS) if found.ndim == 1 else np.full((ROWS, D), NAN)
        np.testing.assert_allclose(found, expected, atol=1e-12)

    @pytest.mark.parametrize("function", EVERY, ids=called)
    def test_is_an_error_otherwise(self, function, full):
        with pytest.raises(ValueError, match="marginalize"):
            function(full, [0.0, NAN, 0.0])


class TestUnits:
    FACTOR = 7.0
    ADDED = {scores.log_score: D * np.log(7.0), scores.dawid_sebastiani: 2 * D * np.log(7.0)}
    POWER = dict.fromkeys(EVERY, 1.0)  # the variogram score's 2 p, with p = ½

    @pytest.mark.parametrize("function", EVERY, ids=called)
    def test_of_y(self, function, normal, y):
        before, after = function(normal, y), function(normal * self.FACTOR, y * self.FACTOR)
        expected = before * (1.0 if function in self.ADDED else self.FACTOR)
        np.testing.assert_allclose(after, expected + self.ADDED.get(function, 0.0), rtol=1e-9)

    @pytest.mark.parametrize("function", [scores.energy_score, scores.variogram_score], ids=called)
    def test_target_scale(self, function, normal, y):
        scale = np.array([2.0, 0.5, 3.0, 1.0])
        expected = function(normal * (1.0 / scale), y / scale)
        np.testing.assert_allclose(function(normal, y, target_scale=scale), expected, rtol=1e-12)
        for wrong, message in (
            ([1.0, 2.0], "target_scale"),
            (-1.0, "positive"),
            (np.ones((2, 4)), "shape"),
        ):
            with pytest.raises(ValueError, match=message):
                function(normal, y, target_scale=wrong)


class TestBatches:
    @pytest.mark.parametrize("function", EVERY, ids=called)
    def test_axes_and_blocks(self, function, rng, monkeypatch):
        normal = predictions(STRUCTURES[2], rng, rows=6)
        y = rng.normal(size=(6, D))
        expected = function(normal, y)
        event = expected.shape[1:]
        monkeypatch.setattr(_observations, "BLOCK", 600)  # of one row to three
        np.testing.assert_allclose(function(normal, y), expected, rtol=1e-12)
        single, one = normal[2], y[2]
        assert function(single, one).shape == event
        np.testing.assert_allclose(function(single, one), expected[2], rtol=1e-12)
        np.testing.assert_allclose(function(normal, one)[2], expected[2], rtol=1e-12)
        np.testing.assert_allclose(function(single, y)[2], expected[2], rtol=1e-12)
        square = normal[np.arange(6).reshape(2, 3)]
        np.testing.assert_allclose(
            function(square, y.reshape(2, 3, D)), expected.reshape(2, 3, *event), rtol=1e-12
        )
        assert function(normal[:0], y[:0]).shape == (0, *event)

    @pytest.mark.parametrize("function", EVERY, ids=called)
    def test_refuses_what_does_not_fit(self, function, full):
        with pytest.raises(ValueError, match=r"must be \(\.\.\., 3\)"):
            function(full, np.zeros((5, 2)))
        with pytest.raises(ValueError, match="infinite"):
            function(full, [0.0, np.inf, 0.0])
        with pytest.raises(ValueError, match="'drop'"):
            function(full, np.zeros(3), missing="drop")

    def test_scipy_is_asked_for(self, full, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "scipy.special", None)
        with pytest.raises(ImportError, match=r"keras-mvn\[analysis\]"):
            scores.crps(full, full.mean)


CORRELATION = np.array([[1.0, 0.7, 0.2], [0.7, 1.0, -0.3], [0.2, -0.3, 1.0]])


class TestPropriety:
    """The truth has the lowest mean, by paired standard errors."""

    WRONG = {
        "mean": ([0.3, 0.0, 0.0], CORRELATION),
        "scale": ([0.0] * 3, 1.5 * CORRELATION),
        "overconfident": ([0.0] * 3, 0.6 * CORRELATION),
        "correlation": ([0.0] * 3, np.eye(3)),
        "common mean": ([0.3] * 3, CORRELATION),
    }
    BLIND = {
        ("crps", "correlation"),
        ("interval_score", "correlation"),
        ("variogram_score", "common mean"),
    }

    @pytest.mark.parametrize("wrong", WRONG)
    @pytest.mark.parametrize("function", EVERY[:-1], ids=called)
    def test_truth_wins(self, function, wrong):
        truth = MultivariateNormal(np.zeros(3), covariance=CORRELATION)
        mean, sigma = self.WRONG[wrong]
        y = truth.sample(10_000, seed=0)
        excess = function(MultivariateNormal(mean, covariance=sigma), y) - function(truth, y)
        excess = excess.reshape(len(y), -1).mean(axis=-1)
        if (function.__name__, wrong) in self.BLIND:
            np.testing.assert_allclose(excess, 0.0, atol=1e-12)
        else:
            assert excess.mean() > LIMIT * excess.std() / np.sqrt(len(y))

    def test_conditional_error_sees_correlations_and_no_size(self):
        truth = MultivariateNormal(np.zeros(3), covariance=CORRELATION)
        y = truth.sample(20_000, seed=0)
        found = scores.conditional_error(truth, y)
        np.testing.assert_allclose(scores.conditional_error(truth.rescale(3.0), y), found)
        other = MultivariateNormal(np.zeros(3), covariance=np.eye(3))
        excess = (scores.conditional_error(other, y) - found).mean(axis=-1)
        assert excess.mean() > LIMIT * excess.std() / np.sqrt(len(y))


class TestComparison:
    @pytest.fixture
    def pair(self, rng):
        reference = rng.gamma(2.0, size=400)
        return reference * rng.uniform(0.5, 1.1, size=400), reference

    def test_skill(self, pair):
        found = scores.skill_score(*pair, level=0.9)
        a, b = (x.mean() for x in pair)
        assert found.value == pytest.approx(1.0 - a / b)
        assert found.level == 0.9
        # The delta method and a normal quantile, right to a few per cent for 400 rows.
        error = np.std(pair[0] - a / b * pair[1]) / b / 20.0
        assert found.standard_error == pytest.approx(error, rel=0.1)
        assert found.lower == pytest.approx(found.value - 1.645 * error, abs=0.2 * error)
        assert found.upper == pytest.approx(found.value + 1.645 * error, abs=0.2 * error)

    def test_mean_difference(self, pair):
        a, b = np.log(pair[0]), np.log(pair[1])
        found = scores.mean_difference(a, b)
        assert found.value == pytest.approx((a - b).mean())
        error = (a - b).std() / 20.0
        assert found.standard_error == pytest.approx(error, rel=0.1)
        assert found.lower == pytest.approx(found.value - 1.96 * error, abs=0.25 * error)
        assert found.upper == pytest.approx(found.value + 1.96 * error, abs=0.25 * error)

    def test_interval_covers_as_often_as_it_says(self, rng):
        level, trials, hits = 0.8, 200, 0
        for seed in range(trials):
            a, b = rng.gamma(2.0, size=(2, 60))
            found = scores.mean_difference(a, 2.0 * b, level=level, n_resamples=300, seed=seed)
            hits += found.lower <= -2.0 <= found.upper
        assert abs(hits / trials - level) < 0.03 + LIMIT * np.sqrt(level * (1 - level) / trials)

    def test_groups_are_drawn_together(self, pair):
        """Rows repeated five times carry no more information than once."""
        once = scores.skill_score(*pair)
        five = [np.repeat(x, 5) for x in pair]
        groups = np.repeat([f"g{i:03}" for i in range(400)], 5)
        together = scores.skill_score(*five, groups=groups)
        np.testing.assert_allclose(
            [together.lower, together.upper], [once.lower, once.upper], rtol=1e-12
        )
        apart = scores.skill_score(*five)
        assert apart.upper - apart.lower < 0.6 * (once.upper - once.lower)

    @pytest.mark.parametrize("method", ["percentile", "basic", "BCa"])
    def test_methods_are_scipys(self, pair, method):
        expected = scipy.stats.bootstrap(
            pair,
            lambda a, b, axis=-1: (a - b).mean(axis=axis),
            paired=True,
            n_resamples=500,
            method=method,
            random_state=np.random.default_rng(4),
        ).confidence_interval
        found = scores.mean_difference(*pair, n_resamples=500, seed=4, method=method)
        np.testing.assert_allclose([found.lower, found.upper], expected, rtol=1e-9)

    def test_rows_without_the_target_do_not_count(self, pair):
        a, b = (np.append(x, NAN) for x in pair)
        assert scores.skill_score(a, b) == scores.skill_score(*pair)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1.0, -1.0], [1.0, 1.0]), "mean_difference"),
            (([1.0, 1.0], [0.0, 0.0]), "nothing can be better"),
            (([1.0, NAN], [1.0, 1.0]), "same rows of both"),
            (([1.0, np.inf], [1.0, 1.0]), "finite"),
            (([1.0, 2.0], [1.0]), "expected one number per row"),
            ((np.ones((2, 2)), np.ones((2, 2))), "one target at a time"),
            (([1.0], [1.0]), "at least two"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            scores.skill_score(*arguments)

    def test_refuses_other_arguments(self, pair):
        for wrong in ({"level": 95}, {"n_resamples": 0}, {"method": "x"}, {"groups": [1]}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                scores.skill_score(*pair, **wrong)


def jackknife(statistic, *columns):
    n = len(columns[0])
    left_out = np.array([statistic(*(np.delete(c, i, axis=0) for c in columns)) for i in range(n)])
    return np.sqrt((n - 1) * left_out.var(axis=0))


class TestEstimates:
    def test_mean_of_unequal_rows(self, rng):
        count = rng.integers(1, 4, size=300).astype(float)
        total = count * rng.normal(3.0, 1.0, size=300)
        found = _estimates.mean_of(total, count)
        assert found.value == pytest.approx(total.sum() / count.sum())
        expected = jackknife(lambda t, c: t.sum() / c.sum(), total, count)
        assert _estimates.standard_error(found) == pytest.approx(expected, rel=0.01)

    def test_root_and_skill(self, rng):
        a, b = rng.gamma(2.0, size=(2, 300))
        one = np.ones(300)
        root = _estimates.root_of(_estimates.mean_of(a, one))
        assert root.value == pytest.approx(np.sqrt(a.mean()))
        expected = jackknife(lambda x: np.sqrt(x.mean()), a)
        assert _estimates.standard_error(root) == pytest.approx(expected, rel=0.01)
        skill = _estimates.skill_of(_estimates.mean_of(a, one), _estimates.mean_of(b, one))
        expected = jackknife(lambda x, y: 1 - x.mean() / y.mean(), a, b)
        assert _estimates.standard_error(skill) == pytest.approx(expected, rel=0.02)

    def test_uniformity_is_the_area_between(self, rng):
        for u in (rng.random(50), rng.random(50) ** 3, np.array([0.5]), np.zeros(4), np.ones(3)):
            p = (np.arange(1_000_000) + 0.5) / 1_000_000
            f = np.searchsorted(np.sort(u), p, side="right") / len(u)
            found = _estimates.uniformity(u).value
            assert found == pytest.approx(np.abs(f - p).mean(), abs=1e-5)

    def test_uniformity_error(self, rng):
        u = rng.random(2000) ** 2
        expected = jackknife(lambda x: _estimates.uniformity(x).value, u)
        found = _estimates.standard_error(_estimates.uniformity(u))
        assert found == pytest.approx(expected, rel=0.02)


class TestEvaluate:
    @pytest.fixture
    def data(self, rng):
        normal = predictions(STRUCTURES[2], rng, rows=400)
        return normal, normal.sample(seed=1)

    def test_is_what_the_scores_say(self, data):
        normal, y = data
        found = scores.evaluate(normal, y, levels=(0.5, 0.9))
        scale = y.std(axis=0)
        np.testing.assert_allclose(found.target_scale, scale)
        residual = y - normal.mean
        marginal = -scipy.stats.norm.logpdf(y, normal.mean, normal.stddev)
        rows = {
            "nll": scores.log_score(normal, y),
            "nll_per_target": scores.log_score(normal, y) / D,
            "marginal_nll": marginal.mean(axis=1),
            "dss": scores.dawid_sebastiani(normal, y),
            "energy_score": scores.energy_score(normal, y, scale),
            "variogram_score": scores.variogram_score(normal, y, target_scale=scale),
            "crps": (scores.crps(normal, y) / scale).mean(axis=1),
            "interval_score_50": (scores.interval_score(normal, y, 0.5) / scale).mean(axis=1),
            "interval_score_90": (scores.interval_score(normal, y, 0.9) / scale).mean(axis=1),
            "conditional_error": (scores.conditional_error(normal, y) / scale).mean(axis=1),
            "coverage_50": normal.mahalanobis(y) ** 2 <= scipy.stats.chi2.ppf(0.5, D),
            "coverage_90": normal.mahalanobis(y) ** 2 <= scipy.stats.chi2.ppf(0.9, D),
            "marginal_coverage_50": (np.abs(residual / normal.stddev) < 0.6745).mean(axis=1),
            "marginal_coverage_90": (np.abs(residual / normal.stddev) < 1.64485).mean(axis=1),
            "log_volume_50": normal.ellipsoid(0.5).log_volume,
            "log_volume_90": normal.ellipsoid(0.9).log_volume,
        }
        assert set(found) == {*rows, "rmse", "calibration_error"}
        for name, values in rows.items():
            assert found[name].mean == pytest.approx(values.mean(), rel=1e-9), name
            error = np.std(values, ddof=1) / np.sqrt(len(y))
            assert found[name].standard_error == pytest.approx(error, rel=1e-9), name
        rmse = np.sqrt(((residual / scale) ** 2).mean())
        assert found["rmse"].mean == pytest.approx(rmse)
        squared = ((residual / scale) ** 2).mean(axis=1)
        error = jackknife(lambda x: np.sqrt(x.mean()), squared)
        assert found["rmse"].standard_error == pytest.approx(error, rel=0.01)
        pit = scipy.stats.chi2.cdf(normal.mahalanobis(y) ** 2, D)
        assert found["calibration_error"].mean == pytest.approx(_estimates.uniformity(pit).value)
        assert found.rows == len(y)

    def test_targets_are_in_the_units_of_y(self, data):
        normal, y = data
        found = scores.evaluate(normal, y, levels=[0.9])
        expected = {
            "crps": scores.crps(normal, y),
            "interval_score_90": scores.interval_score(normal, y, 0.9),
            "conditional_error": scores.conditional_error(normal, y),
            "marginal_nll": -scipy.stats.norm.logpdf(y, normal.mean, normal.stddev),
            "marginal_coverage_90": np.abs(y - normal.mean) < 1.644854 * normal.stddev,
        }
        for name, values in expected.items():
            score = found[name]
            assert list(score.per_target) == list(NAMES)
            np.testing.assert_allclose(list(score.per_target.values()), values.mean(axis=0))
            np.testing.assert_allclose(
                list(score.per_target_standard_error.values()),
                values.std(axis=0, ddof=1) / np.sqrt(len(y)),
            )
        rmse = np.sqrt(((y - normal.mean) ** 2).mean(axis=0))
        np.testing.assert_allclose(list(found["rmse"].per_target.values()), rmse)
        assert {name for name in found if found[name].per_target} == {*expected, "rmse"}
        share = found["marginal_coverage_90"].per_target["b"]
        binomial = np.sqrt(share * (1.0 - share) / (len(y) - 1))
        error = found["marginal_coverage_90"].per_target_standard_error["b"]
        assert error == pytest.approx(binomial)

    def test_scale_of_choice(self, data):
        normal, y = data
        found = scores.evaluate(normal, y, target_scale=1.0, scores=["rmse", "energy_score"])
        assert found["rmse"].mean == pytest.approx(np.sqrt(((y - normal.mean) ** 2).mean()))
        assert found["energy_score"].mean == pytest.approx(scores.energy_score(normal, y).mean())
        assert found["rmse"].unit == "unit of y"
        other = scores.evaluate(normal, y, target_scale=UNITS, scores=["rmse"])["rmse"]
        assert other.mean == pytest.approx(np.sqrt((((y - normal.mean) / UNITS) ** 2).mean()))
        assert other.unit == "target_scale"
        constant = np.array(y)
        constant[:, 1] = 3.0
        with pytest.raises(ValueError, match=r"\['b'\]"):
            scores.evaluate(normal, constant)

    def test_gaps(self, data, rng):
        normal, y = data
        y[rng.random(y.shape) < 0.4] = NAN
        y[:3] = NAN
        scale = np.array([2.0, 5.0, 0.3, 1.0])
        found = scores.evaluate(normal, y, "marginalize", target_scale=scale)
        seen = ~np.isnan(y)
        rows = seen.any(axis=1)
        assert found.rows == rows.sum() < len(y)
        nll = scores.log_score(normal, y, "marginalize")
        assert found["nll"].mean == pytest.approx(nll[rows].mean())
        assert found["nll_per_target"].mean == pytest.approx(nll.sum() / seen.sum())
        crps = scores.crps(normal, y, "marginalize")
        assert found["crps"].mean == pytest.approx(np.nansum(crps / scale) / seen.sum())
        np.testing.assert_allclose(
            list(found["crps"].per_target.values()), np.nanmean(crps, axis=0)
        )
        column = crps[seen[:, 2], 2]
        error = column.std() / np.sqrt(len(column))
        assert found["crps"].per_target_standard_error["c"] == pytest.approx(error, rel=0.01)
        total, count = np.nansum(crps / scale, axis=1)[rows], seen.sum(axis=1)[rows]
        error = jackknife(lambda t, c: t.sum() / c.sum(), total, count)
        assert found["crps"].standard_error == pytest.approx(error, rel=0.01)

    def test_a_right_model_is_calibrated_with_gaps_too(self, rng):
        normal = predictions(LowRank(2), rng, rows=10_000)
        y = normal.sample(seed=1)
        y[rng.random(y.shape) < 0.3] = NAN
        names = [f"{kind}coverage_{level}" for kind in ("", "marginal_") for level in (50, 90, 95)]
        found = scores.evaluate(normal, y, "marginalize", scores=[*names, "calibration_error"])
        for name in names:
            level = float(name.rpartition("_")[2]) / 100.0
            assert abs(found[name].mean - level) < LIMIT * found[name].standard_error
        # E ∫ |Brownian bridge| = 0.313; the 99.9 % point is below 1
        assert found["calibration_error"].mean < 1.0 / np.sqrt(found.rows)
        narrow = scores.evaluate(
            normal.rescale(0.7), y, "marginalize", scores=["calibration_error"]
        )
        assert narrow["calibration_error"].mean > 0.1

    def test_reference(self, data):
        normal, y = data
        climate = MultivariateNormal(y.mean(axis=0), covariance=np.cov(y.T), target_names=NAMES)
        found = scores.evaluate(normal, y, reference=climate)
        alone, theirs = scores.evaluate(normal, y), scores.evaluate(climate, y)
        for name, score in found.items():
            assert score.mean == alone[name].mean
            assert score.reference == pytest.approx(theirs[name].mean, rel=1e-12)
            assert score.difference == pytest.approx(score.mean - score.reference, abs=1e-12)
            assert alone[name].reference is None
        difference = scores.log_score(normal, y) - scores.log_score(climate, y)
        error = difference.std(ddof=1) / np.sqrt(len(y))
        assert found["nll"].difference_standard_error == pytest.approx(error)
        assert found["nll"].skill is None
        assert found["coverage_90"].skill is None
        bootstrapped = scores.skill_score(
            scores.energy_score(normal, y, y.std(axis=0)),
            scores.energy_score(climate, y, y.std(axis=0)),
        )
        assert found["energy_score"].skill == pytest.approx(bootstrapped.value)
        assert found["energy_score"].skill_standard_error == pytest.approx(
            bootstrapped.standard_error, rel=0.1
        )
        assert found["rmse"].skill == pytest.approx(1 - alone["rmse"].mean / theirs["rmse"].mean)

    def test_the_truth_beats_a_wrong_reference(self, data):
        normal, y = data
        found = scores.evaluate(normal, y, reference=normal.rescale(2.0))
        for name in ("nll", "dss", "energy_score", "crps", "interval_score_90"):
            assert found[name].difference < -LIMIT * found[name].difference_standard_error

    def test_any_batch_axes(self, data):
        normal, y = data
        flat = scores.evaluate(normal, y).to_dict()
        square = scores.evaluate(normal[np.arange(400).reshape(20, 20)], y.reshape(20, 20, D))
        assert square.to_dict() == flat

    def test_one_row_has_no_standard_error(self, full):
        found = scores.evaluate(full, full.mean, target_scale=1.0)
        assert np.isnan(found["nll"].standard_error)
        assert found.to_dict()["scores"]["nll"]["standard_error"] is None

    def test_many_targets_of_few_factors(self, rng, monkeypatch):
        normal = predictions(LowRank(2), rng, d=300, rows=3, units=np.ones(300))
        y = normal.sample(seed=0)
        monkeypatch.setattr(Gaussian, "covariance", None)
        monkeypatch.setattr(Gaussian, "lower", None)
        wanted = ["nll", "energy_score", "crps", "conditional_error", "log_volume_90"]
        found = scores.evaluate(normal, y, scores=wanted)
        assert list(found) == wanted

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"levels": [90]}, "levels=90"),
            ({"scores": ["nlll"]}, "nlll"),
            ({"scores": "nll"}, "list of names"),
            ({"target_scale": [1.0, 2.0]}, "target_scale"),
            ({"missing": "drop"}, "'drop'"),
        ],
    )
    def test_refuses(self, data, arguments, message):
        with pytest.raises(ValueError, match=message):
            scores.evaluate(*data, **arguments)

    def test_refuses_what_does_not_fit(self, data):
        normal, y = data
        with pytest.raises(ValueError, match="at least one row"):
            scores.evaluate(normal, np.full(y.shape, NAN), "marginalize")
        with pytest.raises(ValueError, match="marginalize"):
            scores.evaluate(normal, np.full(y.shape, NAN))
        with pytest.raises(ValueError, match="does not fit"):
            scores.evaluate(normal, y, reference=normal[:7])
        with pytest.raises(ValueError, match="targets"):
            scores.evaluate(normal, y, reference=normal.marginal([0, 1]))


class TestEvaluation:
    @pytest.fixture
    def found(self, full):
        return scores.evaluate(full, full.sample(500, seed=1), reference=full.rescale(1.5))

    def test_is_a_mapping(self, found):
        assert found["nll"].unit == "nats"
        assert list(found)[:3] == ["nll", "nll_per_target", "marginal_nll"]
        assert len(found) == len(list(found)) == len(dict(found))
        assert "nll" in found
        assert "nlll" not in found
        with pytest.raises(KeyError, match="energy_score"):
            found["nlll"]

    def test_json(self, found):
        read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert read["rows"] == 500
        assert read["target_names"] == ["u", "v", "w"]
        assert read["scores"]["crps"]["per_target"] == found["crps"].per_target
        assert read["scores"]["nll"]["per_target"] is None
        assert read["scores"]["nll"]["difference"] == found["nll"].difference

    def test_frame(self, found, full):
        frame = found.to_frame()
        assert list(frame.index) == list(found)
        assert frame.loc["nll", "mean"] == found["nll"].mean
        assert frame.loc["energy_score", "skill"] == found["energy_score"].skill
        assert np.isnan(frame.loc["nll", "skill"])
        assert frame.loc["crps", "v_mean"] == found["crps"].per_target["v"]
        error = found["crps"].per_target_standard_error["v"]
        assert frame.loc["crps", "v_standard_error"] == error
        plain = scores.evaluate(full, full.sample(10, seed=1)).to_frame()
        assert list(plain.columns[:4]) == ["mean", "standard_error", "unit", "u_mean"]

    def test_table(self, full):
        y = full.sample(500, seed=1)
        found = scores.evaluate(full, y)
        lines = str(found).splitlines()
        assert lines[0].split() == ["score", "mean", "±", "s.e.", "unit", "u", "v", "w"]
        table = {line.split()[0]: line for line in lines[2 : 2 + len(found)]}
        assert list(table) == list(found)
        assert table["nll"].split()[1] == f"{found['nll'].mean:.4g}"
        assert table["crps"].split()[-1] == f"{found['crps'].per_target['w']:.4g}"
        assert table["log_volume_90"].split()[2] == "0"  # the same in all rows
        right = {len(line) for name, line in table.items() if found[name].per_target}
        assert right == {max(map(len, lines[: 2 + len(found)]))}  # aligned
        assert max(map(len, lines)) <= 100
        assert "500 rows, 3 targets" in str(found)
        assert "sd of y: u" in str(found)

    def test_table_of_many_targets_keeps_its_width(self, rng):
        normal = predictions(Diagonal(), rng, d=40, rows=20, units=np.ones(40))
        table = str(scores.evaluate(normal, normal.sample(seed=0)))
        assert max(map(len, table.splitlines())) <= 100
        assert "more target columns: see to_frame()" in table

    def test_html(self, found):
        page = found._repr_html_()
        assert page.count("<tr>") == len(found) + 1
        assert "<td>energy_score</td>" in page

    def test_repr(self, found):
        assert repr(found).startswith("Evaluation(rows=500, event_size=3, scores=['nll'")
