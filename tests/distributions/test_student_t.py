"""The multivariate Student's t against SciPy, mpmath and simulation."""

import keras
import mpmath
import numpy as np
import pytest
import scipy.stats

from keras_mvn import MultivariateNormal
from keras_mvn.covariances import LowRank
from keras_mvn.distributions import Mixture, MultivariateStudentT
from keras_mvn.distributions._student_law import StudentLaw

pytestmark = pytest.mark.once

D, NU = 4, 5.5


@pytest.fixture
def parameters(rng):
    root = rng.normal(size=(D, D))
    return rng.normal(size=D), root @ root.T + 0.5 * np.eye(D)


@pytest.fixture
def t(parameters):
    return MultivariateStudentT(parameters[0], NU, scale_matrix=parameters[1])


@pytest.fixture
def scipys(parameters):
    return scipy.stats.multivariate_t(*parameters, df=NU)


class TestDensity:
    def test_is_scipys(self, t, scipys, rng):
        y = 3.0 * rng.normal(size=(6, D))
        np.testing.assert_allclose(t.log_prob(y), scipys.logpdf(y), rtol=1e-12)
        assert t.entropy() == pytest.approx(scipys.entropy(), rel=1e-12)

    def test_gaps_are_marginals(self, t, parameters, rng):
        location, scale = parameters
        y = rng.normal(size=D)
        y[[0, 2]] = np.nan
        seen = [1, 3]
        expected = scipy.stats.multivariate_t(location[seen], scale[np.ix_(seen, seen)], df=NU)
        assert t.log_prob(y, "marginalize") == pytest.approx(expected.logpdf(y[seen]), rel=1e-12)
        assert t.log_prob(np.full(D, np.nan), "marginalize") == pytest.approx(0.0, abs=1e-14)

    @pytest.mark.parametrize("nu", [0.3, 1.0, 2.5, 23.0, 25.0, 1e3, 1e6, 1e9])
    def test_keeps_its_digits(self, nu):
        with mpmath.workdps(60):
            for d in (1, 3, 50):
                for q in (0.0, 0.5, 30.0, 1e5):
                    n, m, x = mpmath.mpf(nu), mpmath.mpf(d), mpmath.mpf(q)
                    expected = mpmath.loggamma((n + m) / 2) - mpmath.loggamma(n / 2)
                    expected -= m / 2 * mpmath.log(n * mpmath.pi)
                    expected -= (n + m) / 2 * mpmath.log1p(x / n)
                    found = StudentLaw(nu).log_density(np.array(q), d)
                    assert found == pytest.approx(float(expected), rel=1e-12)
                a = n / 2
                slope = (a + m / 2) * (mpmath.digamma(a + m / 2) - mpmath.digamma(a))
                at_zero = mpmath.loggamma(a + m / 2) - mpmath.loggamma(a)
                at_zero -= m / 2 * mpmath.log(n * mpmath.pi)
                assert StudentLaw(nu).entropy(d) == pytest.approx(float(slope - at_zero), rel=1e-10)

    def test_infinite_degrees_of_freedom_are_a_normal(self, parameters, rng):
        location, scale = parameters
        normal = MultivariateNormal(location, covariance=scale)
        t = MultivariateStudentT(location, np.inf, scale_matrix=scale)
        y = rng.normal(size=(5, D))
        np.testing.assert_allclose(t.log_prob(y), normal.log_prob(y), rtol=1e-13)
        np.testing.assert_allclose(t.region_level(y), normal.region_level(y), rtol=1e-13)
        np.testing.assert_allclose(t.marginal_cdf(y), normal.marginal_cdf(y), rtol=1e-13)
        assert t.entropy() == pytest.approx(normal.entropy())
        a, b = t.condition({0: 1.0}), normal.condition({0: 1.0})
        np.testing.assert_allclose(a.covariance, b.covariance, rtol=1e-13)
        np.testing.assert_allclose(
            t.region(0.9).squared_radius, normal.region(0.9).squared_radius, rtol=1e-12
        )

    def test_each_row_may_have_its_own(self, parameters, rng):
        nu = np.array([1.5, 4.0, np.inf])
        t = MultivariateStudentT(parameters[0], nu, scale_matrix=parameters[1])
        y = rng.normal(size=(3, D))
        for row in range(3):
            alone = MultivariateStudentT(parameters[0], nu[row], scale_matrix=parameters[1])
            assert t.log_prob(y)[row] == pytest.approx(alone.log_prob(y[row]), rel=1e-13)
            assert t[row].degrees_of_freedom == nu[row]
            np.testing.assert_allclose(t.quantile(0.9)[row], alone.quantile(0.9), rtol=1e-13)
            assert t.region_level(y)[row] == pytest.approx(alone.region_level(y[row]), rel=1e-12)
        np.testing.assert_array_equal(t.condition({0: 0.0}).degrees_of_freedom, nu + 1)


class TestMargins:
    def test_are_scipys(self, t, parameters, rng):
        location, scale = parameters
        one = scipy.stats.t(NU, location, np.sqrt(np.diag(scale)))
        y = rng.normal(size=(5, D))
        np.testing.assert_allclose(t.marginal_cdf(y), one.cdf(y), rtol=1e-11)
        np.testing.assert_allclose(t.quantile([0.05, 0.99]), one.ppf([[0.05], [0.99]]), rtol=1e-10)
        np.testing.assert_allclose(t.interval(0.9), one.ppf([[0.05], [0.95]]), rtol=1e-10)
        np.testing.assert_allclose(t.variance, one.var(), rtol=1e-12)
        np.testing.assert_allclose(t.marginal_log_prob(y), one.logpdf(y), rtol=1e-11)

    def test_linear_functions(self, t, parameters, rng):
        location, scale = parameters
        a = rng.normal(size=(2, D))
        expected = scipy.stats.multivariate_t(a @ location + 1.0, a @ scale @ a.T, df=NU)
        y = rng.normal(size=(5, 2))
        np.testing.assert_allclose(t.affine(a, 1.0).log_prob(y), expected.logpdf(y), rtol=1e-10)

    @pytest.mark.parametrize("how", ["sidak", "bonferroni"])
    def test_simultaneous_intervals_are_wide_enough(self, t, scipys, how):
        lower, upper = t.interval(0.9, how)
        y = scipys.rvs(50_000, random_state=0)
        assert ((y >= lower) & (y <= upper)).all(axis=1).mean() > 0.895


class TestConditioning:
    def test_is_the_ratio_of_densities(self, t, scipys, parameters, rng):
        location, scale = parameters
        y = rng.normal(size=D) + np.array([0.0, 5.0, 0.0, -4.0])
        given = t.condition({1: y[1], 3: y[3]})
        assert given.degrees_of_freedom == NU + 2
        known = scipy.stats.multivariate_t(location[[1, 3]], scale[np.ix_([1, 3], [1, 3])], df=NU)
        expected = scipys.logpdf(y) - known.logpdf(y[[1, 3]])
        assert given.log_prob(y[[0, 2]]) == pytest.approx(expected, rel=1e-10)

    def test_a_distant_measurement_widens_what_remains(self, t):
        near, far = (t.condition({0: t.location[0] + x}) for x in (0.0, 30.0))
        assert (far.stddev > 5.0 * near.stddev).all()

    def test_low_rank_stays_low_rank(self, rng):
        y_pred = np.concatenate(
            [rng.normal(size=(3, 6)), np.ones((3, 6)), rng.normal(size=(3, 12))], 1
        )
        t = MultivariateStudentT.from_prediction(
            y_pred, LowRank(2), layout="packed", degrees_of_freedom=4.0
        )
        dense = MultivariateStudentT(t.location, 4.0, scale_matrix=t.scale_matrix)
        y = rng.normal(size=(3, 4))
        for ask in (
            lambda one: one.condition({1: 2.0, 4: 0.0}),
            lambda one: one.marginal([0, 2, 3, 5]),
        ):
            assert ask(t).structure == LowRank(2)
            np.testing.assert_allclose(ask(t).log_prob(y), ask(dense).log_prob(y), rtol=1e-9)
        noisy = t.condition({1: 2.0}, variance=0.5)
        assert all(one.structure == LowRank(2) for one in noisy.components)
        many = dense.condition({1: 2.0}, variance=0.5)
        z = rng.normal(size=(3, 6))
        np.testing.assert_allclose(noisy.log_prob(z), many.log_prob(z), rtol=1e-9)

    def test_noise_makes_a_mixture_of_normals(self, t):
        found = t.condition({0: 1.0}, variance=1e-12)
        assert isinstance(found, Mixture)
        exact = t.condition({0: 1.0})
        y = exact.quantile([0.1, 0.7])
        np.testing.assert_allclose(
            found.marginal([1, 2, 3]).log_prob(y), exact.log_prob(y), rtol=1e-6
        )


class TestProbabilities:
    def test_boxes_are_scipys(self, t, scipys):
        upper = t.quantile(0.8)
        value, error = t.probability(upper=upper, return_error=True)
        expected = scipys.cdf(upper, maxpts=400_000, random_state=0)
        assert value == pytest.approx(expected, abs=3 * error + 2e-4)
        assert 0.0 < error < 2e-3

    def test_one_target_is_exact_in_both_tails(self):
        t = MultivariateStudentT([0.0], 3.0, scale_matrix=[[1.0]])
        one = scipy.stats.t(3.0)
        assert t.probability(lower=50.0) == pytest.approx(one.sf(50.0), rel=1e-12)
        assert t.probability(-60.0, -50.0) == pytest.approx(
            one.cdf(-50.0) - one.cdf(-60.0), rel=1e-12
        )
        assert t.probability(1.0, 0.0) == 0.0

    def test_regions_use_f(self, t, scipys):
        region = t.ellipsoid(0.9)
        assert region.squared_radius == pytest.approx(D * scipy.stats.f(D, NU).ppf(0.9), rel=1e-12)
        y = scipys.rvs(20_000, random_state=1)
        assert region.contains(y).mean() == pytest.approx(0.9, abs=0.01)
        levels = scipy.stats.f(D, NU).cdf(t.mahalanobis(y[:50]) ** 2 / D)
        np.testing.assert_allclose(t.region_level(y[:50]), levels, rtol=1e-11)
        lower, upper = region.bounds()
        corner = region.center + np.sqrt(region.squared_radius) * t.scale_stddev
        np.testing.assert_allclose([lower + upper, upper], [2 * region.center, corner])

    def test_draws(self, t, parameters):
        draws = t.sample(200_000, seed=0)
        distance = t.mahalanobis(draws) ** 2 / D
        assert scipy.stats.kstest(distance, scipy.stats.f(D, NU).cdf).pvalue > 1e-3
        np.testing.assert_allclose(draws.mean(axis=0), parameters[0], atol=0.03)
        np.testing.assert_allclose(np.cov(draws.T), t.covariance, rtol=0.15, atol=0.1)

    def test_levels_as_standard_normal_values(self, rng):
        law = StudentLaw(np.array([4.0, np.inf]))
        x = np.array([[-3.0, 0.5], [2.0, 1.0]])
        expected = [scipy.stats.norm.ppf(scipy.stats.t(4.0).cdf(x[0])), x[1]]
        np.testing.assert_allclose(law.standard_normal(x), expected, rtol=1e-10)
        squared = np.array([7.0, 3.0])
        expected = [scipy.stats.chi2(3).isf(scipy.stats.f(3, 4.0).sf(7.0 / 3)), 3.0]
        np.testing.assert_allclose(law.chi_square(squared, 3), expected, rtol=1e-10)
        p = np.array([0.1, 0.9])
        gamma = scipy.stats.gamma(2.0, scale=0.5).ppf(1.0 - p)
        np.testing.assert_allclose(law.scale_at(p)[:, 0], 1.0 / np.sqrt(gamma), rtol=1e-10)


class TestQuadrature:
    """E f(V) by the nodes, against closed forms."""

    @pytest.mark.parametrize("nu", [1.2, 2.1, 3.0, 10.0, 1e3, 1e9])
    def test_powers(self, nu):
        for power in (0.0, 0.5, 1.0, 2.0):
            if nu <= power:
                continue
            values, weights = StudentLaw(nu).nodes(power)
            with mpmath.workdps(40):
                a, r = mpmath.mpf(nu) / 2, mpmath.mpf(power) / 2
                expected = a**r * mpmath.gammaprod([a - r], [a])
            found = (weights * values ** (power / 2)).sum()
            assert found == pytest.approx(float(expected), rel=1e-8)

    @pytest.mark.parametrize("nu", [0.5, 2.1, 30.0])
    def test_distribution_function(self, nu):
        values, weights = StudentLaw(nu).nodes(0.0)
        x = np.array([-20.0, -3.0, -0.1])
        found = (weights[:, None] * scipy.stats.norm.cdf(x / np.sqrt(values)[:, None])).sum(axis=0)
        np.testing.assert_allclose(found, scipy.stats.t(nu).cdf(x), atol=1e-8)

    def test_spread(self):
        for nu in (1.1, 3.0, 50.0, 1e6):
            law = StudentLaw(nu)
            values, weights = law.nodes()
            pairs = np.sqrt(values[:, None] + values)
            found = (weights[:, None] * weights * pairs).sum()
            assert law.spread_factor() == pytest.approx(found, rel=1e-6)


class TestExchange:
    def test_scipy_numpyro_and_torch(self, t, rng):
        y = rng.normal(size=(3, D))
        np.testing.assert_allclose(t.to_scipy().logpdf(y), t.log_prob(y), rtol=1e-12)
        one = t.marginal(2)
        torch = pytest.importorskip("torch")
        np.testing.assert_allclose(
            one.to_torch().log_prob(torch.tensor(y[:, :1])), one.log_prob(y[:, :1]), rtol=1e-12
        )
        with pytest.raises(ValueError, match="no multivariate Student's t"):
            t.to_torch()
        assert [len(t.flatten().to_scipy()), t.flatten().to_scipy()[0].df] == [1, NU]
        if keras.backend.backend() == "jax":
            pytest.importorskip("numpyro")
            np.testing.assert_allclose(t.to_numpyro().log_prob(y), t.log_prob(y), rtol=1e-4)

    def test_parquet(self, t, tmp_path, rng):
        batch = MultivariateStudentT(
            rng.normal(size=(3, D)), [2.5, 4.0, np.inf], scale_tril=np.eye(D)
        )
        batch.save(tmp_path / "t.parquet")
        loaded = MultivariateStudentT.load(tmp_path / "t.parquet")
        y = rng.normal(size=(3, D))
        np.testing.assert_array_equal(loaded.log_prob(y), batch.log_prob(y))
        with pytest.raises(ValueError, match=r"holds a MultivariateStudentT; load it with"):
            MultivariateNormal.load(tmp_path / "t.parquet")
        with pytest.raises(ValueError, match=r"Use \.npz"):
            Mixture([batch, batch]).save(tmp_path / "m.parquet")


class TestRefusals:
    @pytest.mark.parametrize("nu", [0.0, -1.0, np.nan])
    def test_degrees_of_freedom(self, nu):
        with pytest.raises(ValueError, match="must be positive"):
            MultivariateStudentT([0.0], nu, scale_matrix=[[1.0]])

    def test_moments_that_do_not_exist(self):
        cauchy = MultivariateStudentT([0.0, 0.0], 1.0, scale_matrix=np.eye(2))
        heavy = MultivariateStudentT([0.0, 0.0], [1.5, 7.0], scale_matrix=np.eye(2))
        with pytest.raises(ValueError, match=r"with 1 degrees of freedom has no mean.*location"):
            _ = cauchy.mean
        np.testing.assert_array_equal(heavy.mean, np.zeros((2, 2)))
        for ask in (lambda t: t.covariance, lambda t: t.stddev, lambda t: t.moments()):
            with pytest.raises(ValueError, match=r"1.5 degrees of freedom has no covariance"):
                ask(heavy)
        np.testing.assert_allclose(cauchy.quantile(0.75), np.ones(2), rtol=1e-12)
        np.testing.assert_array_equal(cauchy.correlation, np.eye(2))

    def test_shapes_and_layouts(self):
        with pytest.raises(ValueError, match="does not broadcast"):
            MultivariateStudentT(np.zeros((3, 2)), [3.0, 4.0], scale_matrix=np.eye(2))
        with pytest.raises(ValueError, match="exactly one of scale_matrix and scale_tril"):
            MultivariateStudentT([0.0], 3.0)
        with pytest.raises(ValueError, match="has no degrees of freedom"):
            MultivariateStudentT.from_prediction(np.ones((1, 5)), layout="packed")
        with pytest.raises(ValueError, match="are in y_pred"):
            MultivariateStudentT.from_prediction(np.full((1, 6), 3.0), degrees_of_freedom=4.0)
