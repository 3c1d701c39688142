"""keras_mvn.ops: values against SciPy and dense NumPy, gradients against complex steps."""

import functools
import tracemalloc

import keras
import numpy as np
import pytest
import scipy.stats

import keras_mvn as kmvn
import oracle
from differentiation import (
    EPSILON,
    compiled,
    numpy,
    precision,
    rows_and_gradient,
    tensor,
    value_and_gradients,
)
from keras_mvn import covariances, ops
from keras_mvn.layouts import Reader
from keras_mvn.ops import _kl_divergence
from structures import ORACLE, STRUCTURES, named

D = 4
ROWS = 3
UNIT = np.array([1.0, 20.0, 0.05, 3.0])
OTHERS = [*STRUCTURES[3:], *STRUCTURES[:3]]
SHORT = [covariances.Cholesky(), covariances.LowRank(2), covariances.Diagonal()]
PAIRS = [*zip(STRUCTURES, OTHERS, strict=True), (SHORT[0], SHORT[0]), (SHORT[1], SHORT[2])]

every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=named)
of_pairs = pytest.mark.parametrize(("p", "q"), PAIRS, ids=[f"{p.name}-{q.name}" for p, q in PAIRS])


def predictions(structure, rng, rows=ROWS, d=D, unit=UNIT):
    """A valid y_pred, float64."""
    raw = 0.6 * rng.normal(size=(rows, structure.raw_size(d)))
    scale, shape_params = structure.constrain(raw, d)
    mean = rng.normal(size=(rows, d))
    return np.concatenate([unit * mean, unit * scale, shape_params], axis=-1)


def moments(structure, row, d=D):
    """Mean and Σ of one row, which may be complex, by definition."""
    mean, scale, shape_params = row[:d], row[d : 2 * d], row[2 * d :]
    return mean, oracle.covariance(ORACLE[structure.name], scale, shape_params)


def normals(structure, y_pred):
    return [scipy.stats.multivariate_normal(*moments(structure, row)) for row in y_pred]


def near(y_pred, rng):
    return y_pred[:, :D] + UNIT * rng.normal(size=(len(y_pred), D))


def kl_of(p_mean, p_sigma, q_mean, q_sigma):
    """By inverse and determinant; analytic, so complex steps work."""
    inverse, r = np.linalg.inv(q_sigma), p_mean - q_mean
    log_ratio = np.log(np.linalg.det(q_sigma)) - np.log(np.linalg.det(p_sigma))
    return 0.5 * (np.trace(inverse @ p_sigma) + r @ inverse @ r - len(r) + log_ratio)


# --- density --------------------------------------------------------------------------------------


@every_structure
class TestDensity:
    def test_values(self, structure, dtype, rng):
        y_pred = predictions(structure, rng)
        y = near(y_pred, rng)

        @compiled
        def every(y, y_pred):
            density = ops.log_prob(y, y_pred, structure), ops.mahalanobis(y, y_pred, structure)
            return (*density, ops.entropy(y_pred, structure))

        log_prob, distance, entropy = map(numpy, every(tensor(y, dtype), tensor(y_pred, dtype)))
        assert log_prob.dtype == distance.dtype == entropy.dtype == dtype
        # SciPy factors Σ in its units: float64 less its condition number.
        rtol = {"float32": 3e-5, "float64": 1e-9}[dtype]
        close = functools.partial(np.testing.assert_allclose, rtol=rtol)
        frozen = normals(structure, y_pred)
        close(log_prob, [f.logpdf(v) for f, v in zip(frozen, y, strict=True)])
        close(entropy, [f.entropy() for f in frozen])
        squared = [
            (v - f.mean) @ np.linalg.solve(f.cov, v - f.mean)
            for f, v in zip(frozen, y, strict=True)
        ]
        close(distance, np.sqrt(squared))

    def test_gradients(self, structure, rng):
        y_pred = predictions(structure, rng)
        y = near(y_pred, rng)

        def total(y, y_pred):
            density = ops.log_prob(y, y_pred, structure) + ops.mahalanobis(y, y_pred, structure)
            return keras.ops.sum(density + ops.entropy(y_pred, structure))

        def expected(y, row):
            mean, sigma = moments(structure, row)
            squared = (y - mean) @ np.linalg.inv(sigma) @ (y - mean)
            # ½ log det Σ of the entropy and that of the density cancel.
            return np.sqrt(squared) - 0.5 * squared

        with precision("float64"):
            _, got = value_and_gradients(compiled(total), y, y_pred, dtype="float64")
        for i in range(ROWS):
            wanted = (
                oracle.complex_step_gradient(lambda v, i=i: expected(v, y_pred[i]), y[i]),
                oracle.complex_step_gradient(lambda v, i=i: expected(y[i], v), y_pred[i]),
            )
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one[i], other, rtol=1e-8, atol=1e-8)

    @pytest.mark.elsewhere(structure=["cholesky", "low_rank", "symmetric", "block_diagonal"])
    def test_missing_targets_are_the_exact_marginal(self, structure, rng):
        patterns = ["1111", "0000", "1010", "0111", "1001", "0100"]
        observed = np.array([[c == "1" for c in pattern] for pattern in patterns])
        y_pred = predictions(structure, rng, len(patterns))
        y = np.where(observed, near(y_pred, rng), np.nan)

        def both(p):
            given = tensor(y), p, structure
            return ops.log_prob(*given, missing="marginalize") + ops.mahalanobis(
                *given, missing="marginalize"
            )

        got, gradient = rows_and_gradient(both, y_pred)
        expected = np.zeros(len(patterns))
        for i, seen in enumerate(observed):
            if seen.any():
                mean, sigma = moments(structure, y_pred[i])
                sigma, r = sigma[np.ix_(seen, seen)], (y[i] - mean)[seen]
                expected[i] = scipy.stats.multivariate_normal(cov=sigma).logpdf(r)
                expected[i] += np.sqrt(r @ np.linalg.solve(sigma, r))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
        assert np.isfinite(gradient).all()
        assert not gradient[:, :D][~observed].any()
        assert gradient[:, :D][observed].all()


class TestReading:
    y_pred = np.array([[0.0, 0.0, 2.0, 3.0, 0.5]])

    def test_nan_propagates_unless_told_otherwise(self):
        y = tensor([[np.nan, 1.0]])
        for function in (ops.log_prob, ops.mahalanobis):
            assert np.isnan(numpy(function(y, tensor(self.y_pred)))).all()
            assert np.isfinite(numpy(function(y, tensor(self.y_pred), missing="marginalize"))).all()

    def test_draws_on_leading_axes(self, rng):
        structure = covariances.LowRank(2)
        y_pred = predictions(structure, rng)
        draws = compiled(lambda p: ops.sample(p, 5, 1, structure))(tensor(y_pred))
        got = numpy(compiled(lambda y, p: ops.log_prob(y, p, structure))(draws, tensor(y_pred)))
        expected = [
            [f.logpdf(v) for f, v in zip(normals(structure, y_pred), row, strict=True)]
            for row in numpy(draws).astype(float)
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-4)

    def test_single_distributions_and_time_steps(self, rng):
        y_pred = predictions(covariances.Cholesky(), rng, 6)
        y = near(y_pred, rng)
        log_prob = compiled(lambda y, p: ops.log_prob(y, p))
        flat = numpy(log_prob(tensor(y), tensor(y_pred)))
        steps = log_prob(tensor(y.reshape(2, 3, D)), tensor(y_pred.reshape(2, 3, -1)))
        np.testing.assert_allclose(numpy(steps).reshape(-1), flat, rtol=1e-6)
        single = log_prob(tensor(y[0]), tensor(y_pred[0]))
        np.testing.assert_allclose(numpy(single), flat[0], rtol=1e-6)

    def test_one_target_without_an_event_axis(self):
        got = ops.log_prob(tensor([1.0, 2.0]), tensor([[0.0, 1.0], [0.0, 3.0]]), "diagonal")
        expected = scipy.stats.norm(0, [1, 3]).logpdf([1, 2])
        np.testing.assert_allclose(numpy(got), expected, rtol=1e-6)

    def test_from_raw(self, rng):
        structure = covariances.Symmetric()
        raw = rng.normal(size=(ROWS, D + structure.raw_size(D)))
        valid = np.concatenate(Reader(structure, True, "packed").decode(raw), axis=-1)
        y = tensor(rng.normal(size=(ROWS, D)))

        def every(p, **kwargs):
            q = keras.ops.flip(p, axis=0)
            return (
                ops.log_prob(y, p, structure, **kwargs),
                ops.mahalanobis(y, p, structure, **kwargs),
                ops.entropy(p, structure, **kwargs),
                ops.kl_divergence(p, q, structure, **kwargs),
                ops.sample(p, 2, 3, structure, **kwargs),
                ops.mean(p, structure, **kwargs),
                ops.covariance(p, structure, **kwargs),
            )

        read = compiled(every)(tensor(valid))
        for got, expected in zip(
            compiled(lambda p: every(p, from_raw=True))(tensor(raw)), read, strict=True
        ):
            np.testing.assert_allclose(numpy(got), numpy(expected), rtol=1e-4, atol=1e-4)

    def test_layouts(self):
        log_variance = tensor([[1.0, 2.0, np.log(4.0), np.log(9.0)]])
        got = ops.stddev(log_variance, layout="mean_log_variance")
        np.testing.assert_allclose(numpy(got), [[2.0, 3.0]], rtol=1e-5)
        stacked = tensor([[[1.0, 2.0, 0.0], [5.0, 1.5, 3.0]]])
        assert numpy(ops.mean(stacked, layout="stacked")).tolist() == [[1.0, 5.0]]
        got = ops.covariance(stacked, layout="stacked")
        np.testing.assert_allclose(numpy(got), [[[4.0, 3.0], [3.0, 11.25]]], rtol=1e-6)
        student = tensor([[1.0, 2.0, 4.0]])  # ν = 4: twice the variance
        got = ops.variance(student, layout="student_t")
        np.testing.assert_allclose(numpy(got), [[8.0]], rtol=1e-6)

    @every_structure
    def test_moments(self, structure, dtype, rng):
        y_pred = predictions(structure, rng)

        @compiled
        def every(p):
            functions = ops.mean, ops.covariance, ops.variance, ops.stddev, ops.scale_tril
            return [function(p, structure) for function in functions]

        mean, sigma, variance, stddev, factor = map(numpy, every(tensor(y_pred, dtype)))
        assert {a.dtype for a in (mean, sigma, variance, stddev, factor)} == {np.dtype(dtype)}
        expected = [moments(structure, row) for row in y_pred]
        diagonal = np.array([np.diagonal(s) for _, s in expected])
        close = functools.partial(np.testing.assert_allclose, rtol=100 * EPSILON[dtype])
        close(mean, [m for m, _ in expected])
        close(
            sigma / UNIT / UNIT[:, None],
            [s / UNIT / UNIT[:, None] for _, s in expected],
            atol=100 * EPSILON[dtype],
        )
        close(variance, diagonal)
        close(stddev, np.sqrt(diagonal))
        wanted = [np.linalg.cholesky(s) / UNIT[:, None] for _, s in expected]
        close(factor / UNIT[:, None], wanted, atol=100 * EPSILON[dtype])

    def test_a_small_scale_has_a_standard_deviation(self):
        got, (gradient,) = value_and_gradients(
            lambda p: keras.ops.sum(ops.stddev(p, "diagonal")), np.array([[0.0, 1e-30]])
        )
        np.testing.assert_allclose(got, 1e-30, rtol=1e-6)
        np.testing.assert_allclose(gradient, [[0.0, 1.0]])

    def test_half_precision_is_widened(self):
        got = ops.log_prob(tensor([[0.0]]), tensor([[0.0, 1.0]], "float16"), "diagonal")
        assert keras.backend.standardize_dtype(got.dtype) == "float32"


def test_distance_has_a_gradient_at_zero():
    """Where the row is its own mean; elsewhere the gradient has length 1 in whitened targets."""
    y_pred = np.array([[1.0, 2.0, 1.0, 1.0], [1.0, 2.0, 2.0, 4.0]])
    y = np.array([[1.0, 2.0], [1.0, 6.0]])
    value, gradients = value_and_gradients(
        lambda y, p: keras.ops.sum(ops.mahalanobis(y, p, "diagonal")), y, y_pred
    )
    assert value == 1.0
    np.testing.assert_array_equal(gradients[0], [[0.0, 0.0], [0.0, 0.25]])
    np.testing.assert_array_equal(gradients[1], [[0.0] * 4, [0.0, -0.25, 0.0, -0.25]])


# --- divergence -----------------------------------------------------------------------------------


class TestDivergence:
    @of_pairs
    @pytest.mark.elsewhere(p=["cholesky", "diagonal"], q=["cholesky", "symmetric"])
    def test_values_and_gradients(self, p, q, rng):
        at = predictions(p, rng), predictions(q, rng)

        weight = np.array([1.0, 2.0, -1.0])

        def total(a, b):
            rows = ops.kl_divergence(a, b, p, q)
            return keras.ops.sum(rows * tensor(weight, "float64"))

        with precision("float64"):
            value, got = value_and_gradients(compiled(total), *at, dtype="float64")

        def expected(a, b):
            return kl_of(*moments(p, a), *moments(q, b))

        rows = [expected(a, b) for a, b in zip(*at, strict=True)]
        np.testing.assert_allclose(value, weight @ rows, rtol=1e-10)
        for i in range(ROWS):
            a, b = at[0][i], at[1][i]
            wanted = (
                oracle.complex_step_gradient(lambda v, b=b: expected(v, b), a),
                oracle.complex_step_gradient(lambda v, a=a: expected(a, v), b),
            )
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_allclose(one[i], weight[i] * other, rtol=1e-8, atol=1e-9)

    @pytest.mark.parametrize("p", STRUCTURES, ids=named)
    @pytest.mark.parametrize("q", STRUCTURES, ids=named)
    @pytest.mark.once
    def test_every_pair_on_numpy_arrays(self, p, q, rng):
        at = predictions(p, rng), predictions(q, rng)
        got = _kl_divergence.kl_divergence(
            p, Reader(p, False, "packed").decode(at[0]), q, Reader(q, False, "packed").decode(at[1])
        )
        expected = [kl_of(*moments(p, a), *moments(q, b)) for a, b in zip(*at, strict=True)]
        np.testing.assert_allclose(got, expected, rtol=1e-11)

    @pytest.mark.parametrize("q", SHORT, ids=named)
    def test_it_is_the_mean_log_ratio(self, q, rng):
        p = covariances.PrecisionCholesky()
        at = predictions(p, rng, 1), predictions(q, rng, 1)
        (one,), (other,) = normals(p, at[0]), normals(q, at[1])
        draws = one.rvs(200_000, random_state=1)
        ratio = one.logpdf(draws) - other.logpdf(draws)
        divergence = compiled(lambda a, b: ops.kl_divergence(a, b, p, q))
        got = float(divergence(tensor(at[0]), tensor(at[1]))[0])
        assert abs(got - ratio.mean()) < 4.5 * ratio.std() / np.sqrt(len(ratio))

    @every_structure
    @pytest.mark.elsewhere(structure=["cholesky", "low_rank"])
    def test_of_itself_it_is_zero_with_zero_gradient(self, structure, rng):
        y_pred = predictions(structure, rng, unit=np.ones(D))
        rows, gradient = rows_and_gradient(
            lambda p: ops.kl_divergence(p, tensor(y_pred), structure), y_pred
        )
        np.testing.assert_allclose(rows, 0.0, atol=1e-5)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-4)

    @every_structure
    @pytest.mark.elsewhere(structure=["cholesky", "low_rank"])
    def test_units_drop_out(self, structure, rng):
        """Squares of these scales are no float32 numbers."""
        p, q = predictions(structure, rng, 1), predictions(structure, rng, 1)
        factors = np.ones((3, p.shape[-1]))
        factors[:, : 2 * D] = [[1.0], [1e-25], [1e25]]
        rows, gradient = rows_and_gradient(
            lambda q: ops.kl_divergence(tensor(p * factors), q, structure), q * factors
        )
        np.testing.assert_allclose(rows, rows[0], rtol=1e-4)
        np.testing.assert_allclose(gradient * factors, gradient[[0, 0, 0]], rtol=1e-3, atol=1e-3)

    def test_one_prior_for_all_rows(self, rng):
        p, prior = covariances.LowRank(2), covariances.Cholesky()
        at = predictions(p, rng, 6), predictions(prior, rng, 1)
        paired = numpy(
            ops.kl_divergence(tensor(at[0]), tensor(np.repeat(at[1], 6, axis=0)), p, prior)
        )
        one = numpy(ops.kl_divergence(tensor(at[0]), tensor(at[1][0]), p, prior))
        np.testing.assert_allclose(one, paired, rtol=1e-6)
        steps = numpy(
            ops.kl_divergence(tensor(at[0].reshape(2, 3, -1)), tensor(at[1][0]), p, prior)
        )
        np.testing.assert_allclose(steps.reshape(-1), paired, rtol=1e-6)
        back = numpy(ops.kl_divergence(tensor(at[1][0]), tensor(at[0]), prior, p))
        expected = [kl_of(*moments(prior, at[1][0]), *moments(p, row)) for row in at[0]]
        np.testing.assert_allclose(back, expected, rtol=1e-4)

    def test_different_widths_of_numbers(self):
        with precision("float64"):
            p, q = tensor([[0.0, 1.0]], "float32"), tensor([[1.0, 2.0]], "float64")
            got = ops.kl_divergence(p, q, "diagonal")
        assert keras.backend.standardize_dtype(got.dtype) == "float64"
        np.testing.assert_allclose(numpy(got), [np.log(2) + 0.25 - 0.5], rtol=1e-6)


def low_rank(rng, d, loadings, spread=1.0):
    """A y_pred with these loadings (d, r)."""
    scale = np.exp(spread * rng.normal(size=d))
    return np.concatenate([rng.normal(size=d), scale, loadings.reshape(-1)])[None]


def dense_low_rank(row, d):
    scale, v = row[d : 2 * d], row[2 * d :].reshape(d, -1)
    return row[:d], scale[:, None] * (np.eye(d) + v @ v.T) * scale


class TestLowRankDivergence:
    D = 30

    def pair(self, rng):
        d = self.D
        return (
            low_rank(rng, d, rng.normal(size=(d, 3))),
            low_rank(rng, d, rng.normal(size=(d, 2))),
            covariances.LowRank(3),
            covariances.LowRank(2),
        )

    def test_values_and_gradients(self, rng):
        a, b, p, q = self.pair(rng)
        with precision("float64"):
            rows, got = value_and_gradients(
                compiled(lambda a, b: keras.ops.sum(ops.kl_divergence(a, b, p, q))),
                a,
                b,
                dtype="float64",
            )

        def expected(a, b):
            return kl_of(*dense_low_rank(a, self.D), *dense_low_rank(b, self.D))

        np.testing.assert_allclose(rows, expected(a[0], b[0]), rtol=1e-11)
        wanted = (
            oracle.complex_step_gradient(lambda v: expected(v, b[0]), a[0]),
            oracle.complex_step_gradient(lambda v: expected(a[0], v), b[0]),
        )
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one[0], other, rtol=1e-8, atol=1e-9)

    def test_a_factor_that_is_one_target_alone(self, rng):
        """Its leverage is 1 but for 1e-6, which 1 − leverage would leave to rounding."""
        d = self.D
        v = 0.3 * rng.normal(size=(d, 2))
        v[7] = [1000.0, 3.0]
        q_pred = low_rank(rng, d, v, spread=0.0)
        p_pred = np.concatenate([q_pred[:, :d] + 0.1, np.ones((1, d))], axis=-1)
        p_pred[0, d + 7] = 1000.0  # all of what q calls common, p calls the target's own
        got, gradients = value_and_gradients(
            compiled(
                lambda a, b: keras.ops.sum(
                    ops.kl_divergence(a, b, "diagonal", covariances.LowRank(2))
                )
            ),
            p_pred,
            q_pred,
        )
        a, b = (x[0].astype("float32").astype(float) for x in (p_pred, q_pred))

        def expected(a, b):
            return kl_of(a[:d], np.diag(a[d:] ** 2), *dense_low_rank(b, d))

        # κ = 1e6: its root times the rounding error of float32.
        np.testing.assert_allclose(got, expected(a, b), rtol=2e-4)
        wanted = oracle.complex_step_gradient(lambda v: expected(v, b), a)
        np.testing.assert_allclose(gradients[0][0], wanted, rtol=1e-3, atol=1e-5)

    def test_nothing_dense_for_many_targets(self, rng):
        d, p, q = 3000, covariances.LowRank(3), covariances.LowRank(5)
        a, b = (
            Reader(s, False, "packed").decode(low_rank(rng, d, rng.normal(size=(d, s.rank))))
            for s in (p, q)
        )
        tracemalloc.start()
        _kl_divergence.kl_divergence(p, a, q, b)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.1 * 8 * d * d

    @pytest.mark.parametrize("rank", [1, 4])
    def test_leverage(self, rank, rng):
        v = rng.normal(size=(2, 9, rank)) * np.geomspace(1, 30, 9)[:, None]

        def dense(v):
            return np.diagonal(v @ np.linalg.inv(np.eye(rank) + v.T @ v) @ v.T)

        with precision("float64"):
            got = numpy(_kl_divergence._leverage(tensor(v, "float64")))
            weight = rng.normal(size=9)
            _, (gradient,) = value_and_gradients(
                lambda v: keras.ops.sum(_kl_divergence._leverage(v) * tensor(weight, "float64")),
                v,
                dtype="float64",
            )
        for i in range(2):
            np.testing.assert_allclose(got[i], dense(v[i]), rtol=1e-10)
            wanted = oracle.complex_step_gradient(lambda x: (weight * dense(x)).sum(), v[i])
            np.testing.assert_allclose(gradient[i], wanted, rtol=1e-7, atol=1e-10)


# --- draws ----------------------------------------------------------------------------------------


class TestSample:
    @every_structure
    @pytest.mark.elsewhere(structure=["cholesky", "low_rank"])
    def test_moments(self, structure, rng):
        n = 40_000
        y_pred = predictions(structure, rng, 2)
        draws = numpy(ops.sample(tensor(y_pred), n, seed=1, covariance=structure)).astype(float)
        assert draws.shape == (n, 2, D)
        for i in range(2):
            mean, sigma = moments(structure, y_pred[i])
            variance = np.diagonal(sigma)
            error = np.abs(draws[:, i].mean(axis=0) - mean) / np.sqrt(variance / n)
            np.testing.assert_array_less(error, 4.5)
            wanted = np.sqrt((variance[:, None] * variance + sigma**2) / n)
            np.testing.assert_array_less(np.abs(np.cov(draws[:, i].T) - sigma) / wanted, 4.5)
        assert np.abs(np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]) < 4.5 / np.sqrt(n)

    @every_structure
    @pytest.mark.elsewhere(structure=["cholesky", "low_rank"])
    def test_the_mean_gradient_is_that_of_the_expectation(self, structure, rng):
        """E Σ w y² = Σ w (μ² + diag Σ), estimated in many equal rows for its standard error."""
        rows, weight = 400, np.array([1.0, -0.5, 2.0, 0.3])
        row = predictions(structure, rng, 1, unit=np.ones(D))[0]

        def objective(p):
            y = ops.sample(p, 20, seed=1, covariance=structure)
            return keras.ops.sum(keras.ops.mean(y * y * tensor(weight), axis=0), axis=-1)

        _, gradient = rows_and_gradient(objective, np.tile(row, (rows, 1)))

        def expectation(row):
            mean, sigma = moments(structure, row)
            return (weight * (mean**2 + np.diagonal(sigma))).sum()

        wanted = oracle.complex_step_gradient(expectation, row)
        error = gradient.std(axis=0) / np.sqrt(rows)
        assert (error > 0).all() or structure.name == "block_diagonal"
        np.testing.assert_array_less(np.abs(gradient.mean(axis=0) - wanted), 4.5 * error + 1e-6)

    def test_shapes_and_seeds(self):
        y_pred = tensor([[0.0, 1.0], [5.0, 2.0]])

        def draw(n=None, seed=0):
            return numpy(ops.sample(y_pred, n, seed, "diagonal"))

        assert draw().shape == (2, 1)
        assert draw(7).shape == (7, 2, 1)
        assert draw(0).shape == (0, 2, 1)
        np.testing.assert_array_equal(draw(3), draw(3))
        assert (draw(3) != draw(3, seed=1)).all()
        seed = keras.random.SeedGenerator(0)
        assert (draw(3, seed) != draw(3, seed)).all()
        assert (draw(seed=None) != draw(seed=None)).all()
        assert numpy(ops.sample(y_pred[0], 3, 0, "diagonal")).shape == (3, 1)

    @pytest.mark.parametrize("n", [-1, 2.5, True, "3"])
    def test_bad_n(self, n):
        with pytest.raises(ValueError, match=r"n=.*must be None or a number of draws"):
            ops.sample(tensor([[0.0, 1.0]]), n, 0, "diagonal")


# --- where they are used --------------------------------------------------------------------------


def everything(structure):
    def function(y, p, q):
        draws = ops.sample(p, 3, seed=1, covariance=structure)
        return (
            ops.log_prob(y, p, structure, missing="marginalize"),
            keras.ops.sum(ops.log_prob(draws, p, structure), axis=0),
            ops.mahalanobis(y, p, structure),
            ops.entropy(p, structure),
            ops.kl_divergence(p, q, structure),
            *(f(p, structure) for f in (ops.mean, ops.stddev, ops.covariance, ops.scale_tril)),
        )

    return function


def compile_for_any_batch(function, *widths):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(
            function, input_signature=[tf.TensorSpec((None, w), "float32") for w in widths]
        )
    return compiled(function)


@pytest.mark.parametrize("structure", SHORT, ids=named)
def test_compiled_as_eager(structure, rng):
    """On TensorFlow with a batch of unknown length."""
    if keras.backend.backend() == "jax" and structure != SHORT[0]:
        pytest.skip("slow step by step; the tests above compile it")
    p, q = predictions(structure, rng), predictions(structure, rng)
    y = near(p, rng)
    function = everything(structure)
    arguments = [tensor(x) for x in (y, p, q)]
    built = compile_for_any_batch(function, D, p.shape[-1], q.shape[-1])
    for eager, graph in zip(function(*arguments), built(*arguments), strict=True):
        np.testing.assert_allclose(numpy(graph), numpy(eager), rtol=1e-4, atol=1e-4)


def test_a_loss_of_ones_own_in_fit(rng):
    """An ELBO-like layer loss: a penalty on the divergence from a prior pulls predictions there."""
    prior = np.array([1.0, -1.0, 0.5, 0.5, 0.0], "float32")

    class Penalty(keras.layers.Layer):
        def call(self, y_pred):
            self.add_loss(keras.ops.mean(ops.kl_divergence(y_pred, tensor(prior))))
            return y_pred

    def mean_distance(y_true, y_pred):
        return 1e-3 * ops.mahalanobis(y_true, y_pred)

    head = kmvn.layers.MultivariateNormalHead(2)
    model = keras.Sequential([keras.Input((3,)), head, Penalty()])
    model.compile(keras.optimizers.Adam(0.05), loss=mean_distance)
    x = rng.normal(size=(64, 3)) * 0.1
    model.fit(x, np.ones((64, 2)), epochs=60, batch_size=64, verbose=0)
    normal = head.distribution(model.predict(x, verbose=0))
    np.testing.assert_allclose(normal.mean, np.tile(prior[:2], (64, 1)), atol=0.2)
    np.testing.assert_allclose(normal.stddev, 0.5, atol=0.1)


class TestErrors:
    y_pred = np.zeros((3, 5)) + np.array([0.0, 0.0, 1.0, 1.0, 0.1])

    @pytest.mark.parametrize("function", [ops.log_prob, ops.mahalanobis])
    @pytest.mark.parametrize("shape", [(3, 1), (3,), (3, 3), (2, 2), (3, 1, 2), (2, 1, 3)])
    def test_shapes_of_y(self, function, shape):
        with pytest.raises(ValueError, match=r"ops\.\w+: y_true has shape .* not broadcast"):
            function(tensor(np.zeros(shape)), tensor(self.y_pred))

    def test_unreadable_predictions(self):
        for function in (ops.entropy, ops.sample, ops.mean, ops.covariance):
            with pytest.raises(ValueError, match=r"y_pred has shape \(3, 4\).*cannot read"):
                function(tensor(self.y_pred[:, :4]))
        with pytest.raises(ValueError, match=r"q_pred, read by other_covariance: .*\(3, 4\)"):
            ops.kl_divergence(tensor(self.y_pred), tensor(self.y_pred[:, :4]))

    def test_symbolic_tensors(self):
        y_pred = keras.Input((5,))
        for function in (ops.entropy, ops.mean, functools.partial(ops.kl_divergence, y_pred)):
            with pytest.raises(ValueError, match=r"symbolic KerasTensor.*inside a layer"):
                function(y_pred)

    def test_names(self):
        y, y_pred = tensor(np.zeros((3, 2))), tensor(self.y_pred)
        with pytest.raises(ValueError, match="missing='ignore'"):
            ops.log_prob(y, y_pred, missing="ignore")
        with pytest.raises(ValueError, match="covariance='full'"):
            ops.entropy(y_pred, "full")
        with pytest.raises(ValueError, match="layout='flat'"):
            ops.sample(y_pred, layout="flat")

    @pytest.mark.parametrize("shape", [(2, 5), (1, 5), (3, 1, 5), (3, 9), (4, 3, 9), (9,)])
    def test_predictions_that_do_not_belong_together(self, shape):
        with pytest.raises(ValueError, match=r"ops.kl_divergence: p_pred describes means of shape"):
            ops.kl_divergence(tensor(self.y_pred), tensor(np.ones(shape)))

    def test_another_structure_than_the_heads(self):
        head = kmvn.layers.MultivariateNormalHead(2, "precision_cholesky")
        y_pred = head(tensor(np.zeros((3, 4))))
        calls = [
            lambda: ops.log_prob(tensor(np.zeros((3, 2))), y_pred),
            lambda: ops.entropy(y_pred),
            lambda: ops.mean(y_pred),
            lambda: ops.sample(y_pred, seed=0),
            lambda: ops.kl_divergence(y_pred, tensor(self.y_pred)),
            lambda: ops.kl_divergence(tensor(self.y_pred), y_pred),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="writes 'precision_cholesky'|covariance='prec"):
                call()
        mixed = ops.kl_divergence(
            tensor(self.y_pred), y_pred, other_covariance="precision_cholesky"
        )
        assert np.isfinite(numpy(keras.ops.stop_gradient(mixed))).all()
